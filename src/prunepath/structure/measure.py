"""Measure, on a few forward passes, what a table cannot know: rows, pairs and fixed work.

How many rows pass a linear map is a matter of the model's own code: tokens of the text, patches of
the image, windows that are padded, layers that run twelve times, keys that come from the other
tower. Passes at three text lengths give every count as a polynomial of the length; models that
see no text give the same count three times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from prunepath.structure.gates import frozen
from prunepath.structure.matrices import is_convolution

__all__ = ["LENGTHS", "Measured", "Probe", "measure", "polynomial"]

Probe = Callable[[int], object]
"""Runs the model once on one sample whose texts are so many tokens long."""

LENGTHS = (8, 12, 16)


@dataclass
class Measured:
    """Counts per forward pass of one sample, one entry per length of LENGTHS.

    Args:
        rows: linear map -> rows that passed it; of a convolution, the positions it put out.
        widest: linear map -> rows of one sequence it saw at once (tokens attended to).
        products: linear map or sub-layer -> multiply-accumulates of products of two activations
            inside it, which are those of attention.
        macs: multiply-accumulates of everything.
    """

    rows: dict[str, list[float]] = field(default_factory=dict)
    widest: dict[str, list[float]] = field(default_factory=dict)
    products: dict[str, list[float]] = field(default_factory=dict)
    macs: list[float] = field(default_factory=list)

    def rows_of(self, name: str) -> tuple[float, float]:
        """Rows of a linear map as a + b T."""
        constant, slope, _ = polynomial(self.rows.get(name, [0.0] * len(LENGTHS)))
        return constant, slope

    def pairs_of(self, queries: str, keys: str) -> tuple[float, float, float]:
        """Pairs of tokens that attention multiplies, as a + b T + c T^2."""
        nothing = [0.0] * len(LENGTHS)
        rows, others = self.rows.get(queries, nothing), self.widest.get(keys, nothing)
        return polynomial([row * other for row, other in zip(rows, others, strict=True)])

    def products_of(self, name: str, linears: Iterable[str]) -> list[float]:
        """Multiply-accumulates of the products of activations in a sub-layer, at each length.
        A linear map that the library computes as such a product is none."""
        nothing = [0.0] * len(LENGTHS)
        inside = [self.products.get(linear, nothing) for linear in linears]
        whole = self.products.get(name, nothing)
        return [total - sum(own) for total, *own in zip(whole, *inside, strict=True)]


def measure(
    model: nn.Module, names: Iterable[str], probe: Probe, sublayers: Sequence[str] = ()
) -> Measured:
    """Run the probe at all lengths and count.

    Args:
        model: the model.
        names: linear maps to watch.
        probe: see `Probe`.
        sublayers: modules whose products of activations are counted.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    found = Measured()
    watched = list(dict.fromkeys(names))
    for turn, length in enumerate(LENGTHS):
        with ExitStack() as stack:
            for name in watched:
                hook = _counter(found, name, turn)
                handle = model.get_submodule(name).register_forward_hook(hook)
                stack.callback(handle.remove)
            stack.enter_context(torch.no_grad())
            stack.enter_context(frozen(model))  # the counter follows tensors that ask for gradients
            # The fused kernel hides its products from the counter; the plain one does not.
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            counter = stack.enter_context(FlopCounterMode(display=False))
            for name in {*watched, *sublayers}:
                for handle in _count_products(
                    model.get_submodule(name), name, found, turn, counter
                ):
                    stack.callback(handle.remove)
            probe(length)
        found.macs.append(counter.get_total_flops() / 2)
    return found


def _counter(found: Measured, name: str, turn: int) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        rows = found.rows.setdefault(name, [0.0] * len(LENGTHS))
        widest = found.widest.setdefault(name, [0.0] * len(LENGTHS))
        if is_convolution(module):
            rows[turn] += output.numel() // max(1, output.shape[1])
            return
        shape = args[0].shape
        rows[turn] += shape[:-1].numel()
        widest[turn] = max(widest[turn], float(shape[-2] if len(shape) > 2 else shape[0]))

    return hook


def _count_products(
    module: nn.Module, name: str, found: Measured, turn: int, counter: Any
) -> tuple[Any, Any]:
    """Hooks that add up, per call, what the counter saw of batched products meanwhile."""
    operators = (torch.ops.aten.bmm, torch.ops.aten.baddbmm)
    before: list[float] = []

    def total() -> float:
        counts: Mapping[Any, int] = counter.flop_counts["Global"]
        return sum(counts.get(operator, 0) for operator in operators) / 2

    def enter(_: nn.Module, __: tuple[Any, ...]) -> None:
        before.append(total())

    def leave(_: nn.Module, __: tuple[Any, ...], ___: Any) -> None:
        products = found.products.setdefault(name, [0.0] * len(LENGTHS))
        products[turn] += total() - before.pop()

    return module.register_forward_pre_hook(enter), module.register_forward_hook(leave)


def polynomial(counts: Sequence[float]) -> tuple[float, float, float]:
    """The polynomial a + b T + c T^2 through counts at the three LENGTHS, by differences."""
    first, second, third = counts
    start, step = LENGTHS[0], LENGTHS[1] - LENGTHS[0]
    c = (third - 2 * second + first) / (2 * step**2)
    b = (second - first) / step - c * (LENGTHS[0] + LENGTHS[1])
    return first - b * start - c * start**2, b, c
