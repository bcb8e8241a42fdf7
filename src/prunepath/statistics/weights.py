"""Per-sample weight gradients as sums over rows and columns, without a weight gradient in memory.

A linear map y = W x has for one sample the gradient g_b = D_b^T X_b, with X_b the sample's inputs
and D_b the gradients at its outputs. It is formed where the backward pass has both at hand, and
reduced at once over one of its axes: a unit owns whole rows or columns, so all that is needed is

    |w * g_b|  (first order, summed over samples)      and      (w * g_b)^2  (the Fisher diagonal).

What cannot be reduced at once is left out: the root of a sum over samples of g_b^2 would take an
accumulator the size of the model.

A map that a layer runs several times is counted run by run. Rows that are not laid out sample by
sample (tokens a router has picked) count as one sample.

Shapes: B samples, N rows of a sample, O outputs, I inputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunepath.structure.matrices import is_linear, own_inputs, positions_at, weight_of
from prunepath.structure.units import Structure

if TYPE_CHECKING:
    from prunepath.statistics.collect import Recorder

__all__ = ["linear_maps", "reading_weights", "weight_key"]


_TABLES = ("weight_gradients", "weight_fisher")


def weight_key(linear: str, side: str) -> str:
    """Key of one reduction: `side` is `"output"` (a sum per row of W) or `"input"` (per column)."""
    return f"{linear}|{side}"


def linear_maps(model: nn.Module, structure: Structure) -> tuple[str, ...]:
    """Linear maps that units own rows or columns of, in the order of the places."""
    names = dict.fromkeys(
        tensor.name.removesuffix(".weight")
        for place in structure.places
        for tensor in place.tensors
        if tensor.name.endswith(".weight") and any(axis.cuttable for axis in tensor.axes)
    )
    return tuple(name for name in names if is_linear(model.get_submodule(name)))


@contextmanager
def reading_weights(model: nn.Module, structure: Structure, recorder: Recorder) -> Iterator[None]:
    """Hooks that add to `input_squares`, `weight_gradients` and `weight_fisher`.

    Args:
        model: the dense model, frozen.
        structure: its structure.
        recorder: what is added to; knows how many samples the batch has.
    """
    with ExitStack() as stack:
        for name in linear_maps(model, structure):
            hook = _output_hook(name, recorder)
            stack.callback(model.get_submodule(name).register_forward_hook(hook).remove)
        yield


def _output_hook(name: str, recorder: Recorder) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not torch.is_grad_enabled():
            return None  # the run that only stores layer inputs
        if not output.requires_grad:  # no weight in front of it asks for a gradient
            output = output.detach().requires_grad_()
        rows = own_inputs(module, args[0]).detach()
        squares = _wide(recorder.real(rows)).square().sum(0)
        recorder.sums.add_("input_squares", name, squares)
        for table in _TABLES:  # an expert that is sent nothing gets no gradient, and has sums of 0
            for side, width in zip(("output", "input"), weight_of(module).shape, strict=True):
                recorder.sums.add_(table, weight_key(name, side), squares.new_zeros(width))
        output.register_hook(  # type: ignore[no-untyped-call]
            lambda gradient: _reduce(name, module, rows, gradient, recorder)
        )
        return output

    return hook


def _reduce(
    name: str, module: nn.Module, rows: Tensor, gradient: Tensor, recorder: Recorder
) -> None:
    positions = positions_at(module, "output")
    if positions is not None:
        gradient = gradient.index_select(-1, positions)
    weight_OI = _wide(weight_of(module))
    rows_BNI, gradients_BNO = (recorder.by_sample(_wide(part)) for part in (rows, gradient))
    for sample, slope in zip(rows_BNI, gradients_BNO, strict=True):
        product_OI = slope.T @ sample
        product_OI *= weight_OI
        for table in _TABLES:
            each = product_OI.abs() if table == "weight_gradients" else product_OI.square_()
            recorder.sums.add_(table, weight_key(name, "output"), each.sum(1))
            recorder.sums.add_(table, weight_key(name, "input"), each.sum(0))


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
