"""The cut model's own activations, consumer by consumer, with the dense outputs to aim at.

The dense model has left the outputs y_d of every consumer on some calibration samples. The cut
model runs once over the same samples; when it reaches a consumer, the inputs x_p it really gets
are at hand, its weight is solved on the spot, and the model goes on with it, so that the next
consumer sees its effect. What a repair solves for is its own matter (`sequential.py`,
`scales.py`); the wish is the same:

    y_d + alpha (h_d - h_p)

where h_d - h_p is how far the cut model's residual stream has drifted before this consumer.

Position 0 of a window is left out of the rows where a task says so: its activations are often a
thousand times larger than all others (attention sinks) and would be the only thing fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from prunepath.structure.matrices import own_inputs, set_weight_

__all__ = ["Solve", "Stream", "repair_in_order_"]

Solve = Callable[[str, Tensor, Tensor], Tensor]
"""Name of a consumer, its rows of inputs (N, S) and the outputs wished for (N, O), to its new
weight (O, S)."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """How the cut model is run and read.

    Args:
        outputs: consumer -> dense outputs (B, T, O) on the samples, kept by the search; all
            consumers of the model, cut or not.
        run: runs the cut model's layers once on the samples the outputs were kept for.
        skip_first: leave position 0 out of the rows (attention sinks of decoders).
        masks: (B, T) each, 0 where a sample is padded; texts of two lengths have two, and each
            consumer takes the one of its own length.
        additive: whether what consumers put out is added to the residual stream as it is; where a
            norm or a scale comes in between, no consumer corrects the drift of earlier ones.
        names: consumer -> the residual stream it adds to, where a model has several (encoder and
            decoder); empty: all to one.
        alpha: how much of the drift of the residual stream each consumer corrects.
    """

    outputs: Mapping[str, Tensor]
    run: Callable[[], None]
    skip_first: bool
    masks: Sequence[Tensor] = ()
    additive: bool = True
    names: Mapping[str, str] = field(default_factory=dict)
    alpha: float = 0.7


def repair_in_order_(
    model: nn.Module, stream: Stream, consumers: Container[str], solve: Solve
) -> None:
    """Give the consumers of a cut model new weights, one after the other, in one pass.

    Args:
        model: the cut model; consumers' weights are replaced.
        stream: how it is run and read.
        consumers: names of those to repair.
        solve: finds the new weight.
    """
    outputs = stream.outputs
    drift: dict[str, Tensor] = {}  # dense minus cut residual stream, (B, T, O), by its name
    flattened: dict[int, torch.Size] = {}  # rows -> (B, T), for FFNs that see all rows in one

    def tokens_of(inputs: Tensor) -> torch.Size:
        return flattened.get(inputs.shape[:-1].numel(), inputs.shape[:-1])

    def before(name: str) -> Any:
        def hook(module: Any, args: tuple[Any, ...]) -> None:
            if args[0].ndim > 2:
                flattened[args[0].shape[:-1].numel()] = args[0].shape[:-1]
            if name in consumers:
                wanted = outputs[name].float()
                own = stream.names.get(name, "")
                if stream.additive and own in drift:
                    wanted = wanted + stream.alpha * drift[own].reshape(wanted.shape)
                if module.bias is not None:
                    wanted = wanted - module.bias
                inputs = own_inputs(module, args[0])
                counted = _counted(tokens_of(inputs), stream.skip_first, stream.masks)
                rows = inputs.reshape(-1, inputs.shape[-1])[counted]
                wishes = wanted.reshape(len(counted), -1)[counted].to(rows.dtype)
                set_weight_(module, solve(name, rows, wishes))

        return hook

    def after(name: str) -> Any:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
            own = stream.names.get(name, "")
            change = outputs[name].float() - output
            if own in drift:  # some layers flatten (B, T) in front of their FFN
                change = change.reshape(drift[own].shape) + drift[own]
            drift[own] = change

        return hook

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for name in outputs:
            module = model.get_submodule(name)
            stack.callback(module.register_forward_pre_hook(before(name)).remove)
            if stream.additive:
                stack.callback(module.register_forward_hook(after(name)).remove)
        stream.run()


def _counted(shape: torch.Size, skip_first: bool, masks: Sequence[Tensor]) -> Tensor:
    """Which rows of (B, T) count, bool, (B * T,)."""
    counted = torch.ones(shape, dtype=torch.bool)
    fitting = next((mask for mask in masks if mask.shape == counted.shape), None)
    if fitting is not None:
        counted = fitting.cpu().bool().clone()
    if skip_first and counted.ndim == 2:
        counted[:, 0] = False
    return counted.reshape(-1)
