"""How much the loss feels noise in a weight, by two forward passes and no gradient.

The zeroth-order score of ECoFLaP (arXiv 2310.02998): for a weight W with noise Z ~ N(0, I)

    g = sum over batches of |L(W + eps Z) - L(W - eps Z)| / (2 eps),

a draw of |<dL/dW, Z>|, whose mean is the norm of the gradient times sqrt(2/pi).

Weights are not written: (W + eps Z) x = W x + eps Z x, so eps Z x is added to what the linear map
puts out. And L is taken to first order in the answer y, dL = <dL/dy, y(W + eps Z) - y(W - eps Z)>,
which differs from the difference of losses by a term of third order in eps and does not drown in
the rounding of two nearly equal losses; it also lets labels be drawn from the dense model, as
everywhere in this library, where the samples have none.

Shapes: O outputs and I inputs of a linear map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunepath.errors import NumericsError
from prunepath.progress import Progress, track
from prunepath.structure.gates import frozen
from prunepath.structure.matrices import (
    input_width,
    is_linear,
    out_width,
    own_inputs,
    positions_at,
)
from prunepath.structure.units import PlaceInfo

if TYPE_CHECKING:
    from prunepath.data.samples import Samples
    from prunepath.tasks.task import Task

__all__ = ["linears_of", "noise_scores", "noisy"]


def linears_of(model: nn.Module, place: PlaceInfo) -> list[str]:
    """Linear maps of a sub-layer whose weights units are cut from, by their full path.

    Args:
        model: the model.
        place: the sub-layer.
    """
    names = [tensor.name.rpartition(".") for tensor in place.tensors]
    return [
        module
        for module, _, attribute in names
        if attribute == "weight" and is_linear(model.get_submodule(module))
    ]


def noise_scores(
    model: nn.Module,
    task: Task,
    samples: Samples,
    linears: Sequence[str],
    *,
    epsilon: float = 1e-3,
    objective: str = "kl",
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, float]:
    """The score of every linear map.

    Args:
        model: the dense model; its weights are not touched.
        task: what it is used for.
        samples: what it is run on.
        linears: full paths of linear maps.
        epsilon: standard deviation of the noise.
        objective: `"kl"`: labels drawn from the dense model; `"task"`: those of the samples.
        seed: of noise and labels. Noise is drawn anew for every batch, and the same for both signs.
        progress: who listens.

    Returns:
        linear -> g, of losses summed over the terms of a batch.

    Raises:
        NumericsError: an answer is not finite.
        RequestError: the objective needs labels that the samples do not have.
    """
    scores = dict.fromkeys(linears, 0.0)
    device = next(model.parameters()).device
    batches = list(samples.batches(task.counts.batch))
    work = [(index, which) for index in range(len(batches)) for which in range(len(linears))]
    gradient: Tensor | None = None
    with frozen(model), torch.no_grad():
        for index, which in track(progress, work, "shaking weights", len(work)):
            inputs = batches[index].to(device)
            if not which:
                generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
                answer = task.output(model, inputs)
                gradient = task.draw(answer, batches[index], objective, generator)
            assert gradient is not None
            answers = []
            for sign in (1, -1):
                generator = torch.Generator().manual_seed(
                    (seed * 1_000_003 + index) * 1_000_003 + which
                )
                with noisy(model, linears[which], sign * epsilon, generator):
                    answers.append(task.output(model, inputs))
            change = (gradient * (answers[0] - answers[1])).sum(dtype=torch.float64)
            scores[linears[which]] += abs(float(change)) / (2 * epsilon)
    for name, score in scores.items():
        if not score < float("inf"):
            raise NumericsError(
                f"with noise in '{name}' the answers are not finite; load the model in float32 or "
                "bfloat16, or lower epsilon"
            )
    return scores


@contextmanager
def noisy(
    model: nn.Module, linear: str, epsilon: float, generator: torch.Generator
) -> Iterator[None]:
    """Run the model as if a weight W were W + epsilon Z while inside.

    Args:
        model: the model.
        linear: full path of a linear map.
        epsilon: standard deviation of the noise; negative for the other sign.
        generator: draws Z, (O, I), in float32 on the CPU.
    """
    module: Any = model.get_submodule(linear)
    noise_OI = torch.randn(out_width(module), input_width(module), generator=generator)
    noise_OI = (epsilon * noise_OI).to(module.weight.device, module.weight.dtype)
    positions = positions_at(module, "output")

    def add(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        moved = own_inputs(module, args[0]) @ noise_OI.T
        return output + moved if positions is None else output.index_add(-1, positions, moved)

    handle = module.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
