"""Which units of a group go, once it is known how many: what they do together decides.

An order counts every unit by itself. Two units that do the same are each cheap to lose and dear
together; two whose effects cancel are the other way round. With the block-diagonal Fisher matrix
of gate gradients the damage of removing the set R of a group is 1/2 ||sum over R of g||^2 (Kwon et
al. 2022, mask rearrangement), and units kept are exchanged for units removed as long as that gets
smaller. Numbers stay as they are, in every lane, so costs and shapes do not change.

Shapes: R rows of gate gradients, U units of a group, W units of a lane.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunepath.structure.axes import BoolArray
from prunepath.structure.selection import Selection
from prunepath.structure.units import Structure

__all__ = ["Rearrangement", "rearrange"]

FloatArray = NDArray[np.float64]

_BLOCK = 256
_SMALLEST = 1e-9  # of the first damage: less is rounding


@dataclass(frozen=True, kw_only=True)
class Rearrangement:
    """What was exchanged.

    Args:
        selection: units kept; as many in every lane of every group as before.
        swaps: how many exchanges were made; a unit may take part in several.
        before: damage of what was removed, as its groups' blocks tell it, per loss term.
        after: the same of what is removed now.
    """

    selection: Selection
    swaps: int
    before: float
    after: float


def rearrange(
    structure: Structure, selection: Selection, rows: Mapping[str, FloatArray]
) -> Rearrangement:
    """Exchange kept for removed units of each group until no exchange of two lowers its damage.

    Deterministic. The result is a local optimum, no matter in which order swaps were made. It
    cannot be better than the rows: few of them make many sets look harmless.

    Args:
        structure: the dense model's structure.
        selection: units kept.
        rows: group -> gate gradients (R, U) whose Gram matrix is the group's block of the Fisher
            matrix (`statistics.gate_rows`); groups that are absent stay as they are.

    Returns:
        The new selection, and what became of the damage.

    Example:
        >>> done = rearrange(structure, selection, rows)  # doctest: +SKIP
        >>> done.after <= done.before  # doctest: +SKIP
        True
    """
    keep = {name: mask.copy() for name, mask in selection.keep.items()}
    swaps, before, after = 0, 0.0, 0.0
    for group in structure.groups:
        if group.name not in rows or group.name not in keep or keep[group.name].all():
            continue
        gradients = np.asarray(rows[group.name], dtype=np.float64)
        mask = keep[group.name]
        before += _damage(gradients, mask)
        lanes = np.split(np.arange(group.num_units), group.num_lanes)
        swaps += _exchange_(gradients, mask, lanes)
        after += _damage(gradients, mask)
    return Rearrangement(selection=Selection(keep), swaps=swaps, before=before, after=after)


def _damage(rows: FloatArray, keep: BoolArray) -> float:
    return 0.5 * float(np.square(rows[:, ~keep].sum(1)).sum())


def _exchange_(rows: FloatArray, keep: BoolArray, lanes: list[NDArray[np.int64]]) -> int:
    """Swap within lanes until nothing helps; returns how often.

    Taking j back and i out changes ||s||^2 by |g_j|^2 - 2 s.g_j + |g_i|^2 + 2 s.g_i - 2 g_i.g_j,
    with s the sum of the rows of what is removed. Every removed j is offered the best i of its
    lane; a sweep over all j without a swap proves that none helps.
    """
    norms = np.square(rows).sum(0)
    total = rows[:, ~keep].sum(1)
    along = rows.T @ total  # s.g of every unit
    least = _SMALLEST * float(total @ total)
    swaps, last = 0, -1
    while swaps != last:
        last = swaps
        for lane in lanes:
            removed = lane[~keep[lane]]
            removed = removed[np.argsort((norms - 2 * along)[removed], kind="stable")]
            for start in range(0, len(removed), _BLOCK):
                block = removed[start : start + _BLOCK]
                cross = rows[:, block].T @ rows[:, lane]  # (block, W)
                for j, with_j in zip(block, cross, strict=True):
                    change = (norms + 2 * along)[lane] - 2 * with_j + norms[j] - 2 * along[j]
                    change[~keep[lane]] = np.inf
                    best = int(np.argmin(change))
                    if change[best] < -least:
                        i = lane[best]
                        keep[j], keep[i] = True, False
                        along += rows.T @ (rows[:, i] - rows[:, j])
                        swaps += 1
    return swaps
