"""The rule `curves`: how far the model moves when one sub-layer is cut alone, and the least sum.

Each sub-layer is cut to a few sizes along the path's own order, everything else whole, and the
distance of the answers is measured: a curve per sub-layer. Distances of independent small cuts add
up nearly, so sizes for all sub-layers follow by dynamic programming over what they save (RD, ICCV
2023, for layers and ratios of weights; LAPTOP-Diff, arXiv 2404.11098, for whole layers, where a
curve has two points and the program is a 0/1 knapsack):

    D[n][k] = min over the sizes s of sub-layer n of  d_n(s) + D[n - 1][k - saved_n(s)].

Differences: both papers take the squared error of the output, here it is the task's own distance;
between measured sizes a curve is a straight line over what is saved; and it never falls, because
more removal that measures as less damage is noise of a few samples.

Shapes: S sizes of a sub-layer, K bins of what is saved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from prunepath.allocation.ladders import Counts, Ladders

__all__ = ["Curve", "cheapest_counts", "measured_counts", "read_curves", "summed"]

FloatArray = NDArray[np.float64]

_BINS = 8192
"""More would not change a choice: a bin is then 1/8192 of what is saved."""


@dataclass(frozen=True)
class Curve:
    """One sub-layer's sizes.

    Args:
        saved: what 0, 1, 2, ... steps save, (S,).
        distance: of the answers, as many; starts at 0 and never falls.
    """

    saved: NDArray[np.int64]
    distance: FloatArray


def measured_counts(ladders: Ladders, index: int, levels: int) -> list[int]:
    """Sizes of a ladder that are measured: evenly spaced in what they save, without the whole one.

    Args:
        ladders: all of them.
        index: which.
        levels: sizes, the whole sub-layer and the least one included.
    """
    most = ladders.most(index)
    found = {
        ladders.count_for(index, most * level / (levels - 1)) for level in range(1, levels - 1)
    }
    return sorted((found | {ladders.height(index)}) - {0})


def read_curves(
    ladders: Ladders, levels: int, distance: Callable[[int, int], float]
) -> list[Curve]:
    """The curve of every ladder.

    Args:
        ladders: all of them.
        levels: sizes that are measured of each.
        distance: (ladder, steps made) -> distance of the answers when it alone is cut.
    """
    curves = []
    for index in range(len(ladders)):
        counts = measured_counts(ladders, index, levels)
        found = np.maximum.accumulate([0.0, *(distance(index, count) for count in counts)])
        saved = np.array([ladders.saved(index, n) for n in range(ladders.height(index) + 1)])
        saved = np.maximum.accumulate(saved)
        # What saves nothing more (units of a sub-layer that is gone) is interpolated by nothing.
        known = saved[[0, *counts]]
        curves.append(Curve(saved, np.interp(saved, known, found)))
    return curves


def cheapest_counts(ladders: Ladders, curves: Sequence[Curve], required: float) -> Counts | None:
    """Counts of least summed distance that save what is required.

    The optimum where what is saved has a common divisor that leaves at most 8,192 bins; with more,
    savings are rounded down to bins, which never saves too little.

    Args:
        ladders: all of them.
        curves: theirs.
        required: what must be saved.

    Returns:
        Steps of every ladder; None where rounded savings do not reach that far.
    """
    unit = reduce(math.gcd, (int(each) for curve in curves for each in curve.saved), 0) or 1
    unit = max(unit, math.ceil(required / _BINS))
    bins = math.ceil(required / unit)
    best = np.full(bins + 1, np.inf)  # least distance that saves at least so many bins
    best[0] = 0.0
    chosen: list[NDArray[np.int32]] = []
    for curve in curves:
        widths, first = np.unique(np.minimum(curve.saved // unit, bins), return_index=True)
        new, pick = np.full(bins + 1, np.inf), np.zeros(bins + 1, dtype=np.int32)
        for width, count in zip(widths, first, strict=True):
            with_it = np.empty(bins + 1)
            with_it[:width] = best[0]
            with_it[width:] = best[: bins + 1 - width]
            with_it += curve.distance[count]
            better = with_it < new
            new[better], pick[better] = with_it[better], count
        best = new
        chosen.append(pick)
    if not np.isfinite(best[bins]):
        return None
    counts, left = [], bins
    for curve, pick in zip(reversed(curves), reversed(chosen), strict=True):
        count = int(pick[left])
        counts.append(count)
        left = max(0, left - int(curve.saved[count] // unit))
    return _relieved(ladders, curves, tuple(reversed(counts)), required)


def summed(curves: Sequence[Curve], counts: Sequence[int]) -> float:
    """What the curves say of counts: the sum of their distances."""
    return float(sum(curve.distance[count] for curve, count in zip(curves, counts, strict=True)))


def _relieved(ladders: Ladders, curves: Sequence[Curve], counts: Counts, required: float) -> Counts:
    """Steps that need not be made are taken back, first where they do most."""
    steepest = sorted(
        range(len(counts)),
        key=lambda index: -curves[index].distance[counts[index]] / max(1, ladders.most(index)),
    )
    return ladders.give_back(counts, required, steepest)
