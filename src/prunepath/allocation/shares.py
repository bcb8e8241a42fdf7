"""The rule `shares`: sub-layers are cut by how much the loss feels noise in their weights.

The allocation of ECoFLaP (arXiv 2310.02998). Of a part p that is to leave, no sub-layer loses more
than s_max = p + `spread`: each keeps (1 - s_max) N at first, and what may be kept beyond that is
handed out in proportion to the scores, never more than a sub-layer has, until nothing is left.

Differences. N is what a sub-layer can give up, in the metric of the budget. Whole steps are taken,
and p is bisected until the counted budget is met: the largest model of the family that p describes.
The released code adds where it should trim an overshoot; there is none here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from prunepath.allocation.ladders import Counts, Ladders

__all__ = ["kept_shares", "share_counts"]

FloatArray = NDArray[np.float64]
_HALVINGS = 50


def kept_shares(
    sizes: ArrayLike, scores: ArrayLike, part: float, *, spread: float = 0.1
) -> FloatArray:
    """What every sub-layer keeps of its size.

    Args:
        sizes: of the sub-layers, N.
        scores: at least 0; where all are 0, sizes stand for them.
        part: p, the part of all sizes that leaves, in [0, 1].
        spread: how far above p any sub-layer may be cut.

    Returns:
        As many numbers as sizes; they sum up to (1 - p) sum N.

    Example:
        >>> kept_shares([10, 10], [3, 1], 0.5).tolist()
        [5.5, 4.5]
        >>> kept_shares([10, 10], [1, 0], 0.05).tolist()
        [10.0, 9.0]
    """
    whole, weights = np.asarray(sizes, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    kept = (1 - min(1.0, part + spread)) * whole
    left = (1 - part) * whole.sum() - kept.sum()
    tiny = 1e-12 * max(1.0, whole.sum())
    while left > tiny:
        room = whole - kept
        asking = np.where(room > tiny, weights, 0.0)
        if not asking.any():  # those with a score are whole
            asking = np.where(room > tiny, whole, 0.0)
        given = np.minimum(room, left * asking / asking.sum())
        if not given.any():
            break
        kept, left = kept + given, left - given.sum()
    return kept


def share_counts(
    ladders: Ladders, scores: Sequence[float], required: float, *, spread: float = 0.1
) -> Counts:
    """Counts of the smallest part p that save what is required.

    Args:
        ladders: all of them; together they can save it.
        scores: of each, at least 0.
        required: what must be saved.
        spread: see `kept_shares`.
    """
    sizes = [ladders.most(index) for index in range(len(ladders))]

    def at(part: float) -> Counts:
        kept = kept_shares(sizes, scores, part, spread=spread)
        return tuple(
            ladders.nearest(index, size - keep)
            for index, (size, keep) in enumerate(zip(sizes, kept, strict=True))
        )

    low, high = 0.0, 1.0  # at 1 everything leaves that can
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if ladders.total(at(middle)) >= required:
            high = middle
        else:
            low = middle
    return at(high)
