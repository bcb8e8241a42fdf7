"""Measure what fewer tokens save on this machine, for latency budgets with merging.

The first sub-layer of every sort is timed on what the model hands it, shortened to a part of the
tokens; merging itself is timed at the full number.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prunepath.allocation.latency import TokenPace, build_grid, median_seconds
from prunepath.progress import Progress, note
from prunepath.structure.tokens import TokenSite, mergeable
from prunepath.structure.units import Structure
from prunepath.surgery.tokens import Merged, match, merge

if TYPE_CHECKING:
    from prunepath.tasks.task import Task

__all__ = ["token_pace"]

_REPEATS = 5


@torch.no_grad()
def token_pace(
    model: Any,
    task: Task,
    structure: Structure,
    site: TokenSite,
    *,
    progress: Progress | None = None,
) -> TokenPace:
    """Seconds of sub-layers by the part of the tokens they see, batch 1.

    Args:
        model: the dense model.
        task: makes the sample.
        structure: the dense model's structure.
        site: where tokens merge.
        progress: who listens.
    """
    note(progress, f"measuring what fewer than {site.tokens} tokens save")
    sorts = {
        place.path.rpartition(".")[2]: place
        for place in reversed(structure.places)
        if place.stack == site.stack
    }
    places = list(sorts.values())
    calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}
    inputs = task.dummy(model, 1).to(model.device)
    with ExitStack() as stack:
        for place in places:

            def keep(_: Any, args: Any, kwargs: Any, name: str = place.module) -> None:
                calls.setdefault(name, (args, dict(kwargs)))

            module = model.get_submodule(place.module)
            stack.callback(module.register_forward_pre_hook(keep, with_kwargs=True).remove)
        task.output(model, inputs)
    curves = {}
    for place in places:
        module, (args, kwargs) = model.get_submodule(place.module), calls[place.module]

        def seconds_at(
            fractions: dict[str, float],
            module: Any = module,
            args: Any = args,
            kwargs: Any = kwargs,
        ) -> float:
            count = max(1, round(fractions["token"] * site.tokens))
            fewer = [_shortened(value, count, site) for value in args]
            named = {name: _shortened(value, count, site) for name, value in kwargs.items()}
            return median_seconds(lambda: _wait(module(*fewer, **named)), _REPEATS)

        grid = build_grid(("token",), seconds_at)
        curves[place.path.rpartition(".")[2]] = grid / grid[-1]
    args, kwargs = calls[places[0].module]
    hidden = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
    return TokenPace(curves=curves, merge_seconds=_merge_seconds(hidden, site))


def _shortened(value: Any, count: int, site: TokenSite) -> Any:
    """The first tokens of what has all of them, shape (1, tokens, width)."""
    if isinstance(value, Tensor) and value.ndim == 3 and value.shape[1] == site.tokens:
        return value[:, :count].contiguous()
    return value


def _merge_seconds(hidden: Tensor, site: TokenSite) -> float:
    keys = hidden[..., : hidden.shape[-1] // site.key_width * site.key_width]
    count = max(1, mergeable(site.tokens, site.protected) // 2)

    def once() -> None:
        place = match(keys, key_width=site.key_width, protected=site.protected, count=count)
        shorter, merged = merge(hidden, Merged.nothing(hidden), place, count)
        _wait(shorter + merged.bias(hidden.dtype).mean())

    return median_seconds(once, _REPEATS)


def _wait(answer: Any) -> None:
    """Until a GPU has done what it was given."""
    tensor = answer[0] if isinstance(answer, tuple) else answer
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
