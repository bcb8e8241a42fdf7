"""Runs of layers that lie side by side: which to remove, as one nested order.

Gromov et al. (arXiv 2403.17887) remove n layers at once: those from l on for which the stream that
enters layer l and the stream that leaves layer l + n - 1 are at the smallest angle, for every n
anew. Blocks of different n need not lie inside each other, and a path is one order. So the choice
is exactly theirs at one n, the target; a smaller block lies in that one, a larger one around it:
inwards, the end is given up without which the rest is closer; outwards, the neighbour is added with
which the whole is closer. What they would choose at every n is told beside the order.

Shapes: L layers of a stack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BlockOrder", "block_order", "free_choices"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BlockOrder:
    """How the layers of one run leave.

    Args:
        layers: first removed first; the first n are always side by side.
        distances: of the block of the first 1, 2, ... of them.
    """

    layers: tuple[int, ...]
    distances: tuple[float, ...]


def free_choices(distances_LL: Floats) -> dict[int, int]:
    """For every number of layers the first layer of the closest block (the paper's choice).

    Args:
        distances_LL: entry (i, j) between what enters layer i and what leaves layer j; NaN where
            that was not measured, or a layer in between cannot leave.
    """
    found: dict[int, int] = {}
    for count in range(1, len(distances_LL) + 1):
        row = np.diagonal(distances_LL, offset=count - 1)
        if not np.isnan(row).all():
            found[count] = int(np.nanargmin(row))
    return found


def block_order(distances_LL: Floats, target: int) -> BlockOrder:
    """One nested order of the layers of one run.

    Args:
        distances_LL: see `free_choices`; every layer in it can leave.
        target: number of layers at which the block is the closest there is; cut to what there are.

    Example:
        >>> angles = np.array([[0.4, 0.5, 0.6], [np.nan, 0.3, 0.2], [np.nan, np.nan, 0.1]])
        >>> block_order(angles, 2).layers
        (2, 1, 0)
    """
    choices = free_choices(distances_LL)
    size = min(max(1, target), max(choices))
    first = choices[size]
    last = first + size - 1
    inside: list[int] = []  # from the target inwards: what comes back first leaves last
    low, high = first, last
    while low < high:
        if _value(distances_LL, low + 1, high) <= _value(distances_LL, low, high - 1):
            inside.append(low)
            low += 1
        else:
            inside.append(high)
            high -= 1
    order = [low, *reversed(inside)]
    low, high = first, last
    while high - low + 1 < len(distances_LL):
        before, behind = _value(distances_LL, low - 1, high), _value(distances_LL, low, high + 1)
        if before < behind:
            low -= 1
            order.append(low)
        else:
            high += 1
            order.append(high)
    spans = [sorted(order[:count]) for count in range(1, len(order) + 1)]
    return BlockOrder(
        layers=tuple(order),
        distances=tuple(_value(distances_LL, span[0], span[-1]) for span in spans),
    )


def _value(distances_LL: Floats, low: int, high: int) -> float:
    """The distance of one block; infinite where there is none."""
    if low < 0 or high >= len(distances_LL):
        return float("inf")
    value = float(distances_LL[low, high])
    return value if np.isfinite(value) else float("inf")
