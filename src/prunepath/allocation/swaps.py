"""Refine a selection by swaps under a quadratic model: one kept and one removed unit change places.

Sizes stay: both units of a swap are of one lane of one group, so costs and shapes do not change.
What a swap does counts all units of the model's block, other layers included. Only candidates near
the boundary move: in every lane the kept units that would leave next, and the removed ones that
left last, by the order of the path (iCBS, arXiv 2411.17796, picks its candidates that way, too).

Deterministic: each time the best of all swaps is made, until none lowers the energy. The published
solver anneals; for candidates of a lane, where a swap is priced in one addition per pair, the
descent ends within seconds at a point that no single swap improves.

Shapes: R rows, C candidates of a block, W of a lane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prunepath.allocation.quadratic import Block, QuadraticModel
from prunepath.errors import RequestError
from prunepath.structure.selection import Selection
from prunepath.structure.units import Structure

__all__ = ["Swap", "SwapOptions", "after_swaps", "find_swaps"]

_SMALLEST = 1e-9  # of the damage of all removed units by themselves: less is rounding


@dataclass(frozen=True, kw_only=True)
class SwapOptions:
    """How far swaps go.

    Args:
        candidates: units of each lane that may move, on each side of the boundary.
        max_swaps: most swaps of one call.

    Raises:
        RequestError: a number below 1.
    """

    candidates: int = 64
    max_swaps: int = 2000

    def __post_init__(self) -> None:
        for name in ("candidates", "max_swaps"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True)
class Swap:
    """One exchange: `closed` leaves and `opened` comes back; `change` is what E does, below 0."""

    group: str
    closed: int
    opened: int
    change: float


def after_swaps(selection: Selection, swaps: Sequence[Swap]) -> Selection:
    """A selection after some swaps, in their order."""
    keep = {name: mask.copy() for name, mask in selection.keep.items()}
    for swap in swaps:
        keep[swap.group][swap.closed] = False
        keep[swap.group][swap.opened] = True
    return Selection(keep)


def find_swaps(
    structure: Structure,
    selection: Selection,
    model: QuadraticModel,
    ranks: Mapping[str, NDArray[np.int64]],
    options: SwapOptions | None = None,
) -> list[Swap]:
    """Swaps that lower the energy, best first; those of one block come together.

    Args:
        structure: the dense model's structure.
        selection: units kept.
        model: groups that are absent from it stay as they are.
        ranks: group -> place of each unit in the path, 0 matters most.
        options: how far to go.

    Returns:
        In the order they were made; `after_swaps` makes any first part of them.

    Example:
        >>> swaps = find_swaps(structure, chosen, model, path.rank)  # doctest: +SKIP
        >>> model.energy(after_swaps(chosen, swaps)) <= model.energy(chosen)  # doctest: +SKIP
        True
    """
    options = options or SwapOptions()
    found: list[Swap] = []
    for block in model.blocks:
        search = _Descent(structure, selection, block, ranks, options.candidates)
        while len(found) < options.max_swaps and (swap := search.best()) is not None:
            found.append(swap)
    return found


class _Descent:
    """Best-improvement swaps in one block.

    The change of closing i and opening j of one lane is add_i + drop_j - (1 - rho) G_i.G_j, with
    add_u and drop_u what closing and opening u alone do. A swap moves G d by G_i - G_j, so add and
    drop of all candidates are brought up to date by one product with the rows.
    """

    def __init__(
        self,
        structure: Structure,
        selection: Selection,
        block: Block,
        ranks: Mapping[str, NDArray[np.int64]],
        candidates: int,
    ) -> None:
        start = 0
        names: list[str] = []
        units: list[int] = []
        columns: list[int] = []
        self._lanes: list[slice] = []
        for name, rows in block.rows.items():
            group = structure.groups_by_name[name]
            keep = selection.of(group)
            for lane in np.split(np.arange(group.num_units), group.num_lanes):
                own = _near_boundary(lane, keep, ranks[name], candidates)
                if len(own):
                    self._lanes.append(slice(len(units), len(units) + len(own)))
                    names += [name] * len(own)
                    units += own.tolist()
                    columns += (start + own).tolist()
            start += rows.shape[1]
        where = np.array(columns, dtype=np.int64)
        shift = block.shift(selection)
        self._names, self._units = names, units
        self._rho = block.rho
        self._rows_RC = block.matrix[:, where]
        self._norms = block.norms[where]
        self._slopes = block.flat(block.slopes)[where]
        self._shift = shift[where]
        self._along = self._rows_RC.T @ (block.matrix @ shift)
        self._kept = np.array(
            [bool(selection.keep[n][u]) for n, u in zip(names, units, strict=True)], dtype=np.bool_
        )
        self._grams = [
            (1 - self._rho) * (self._rows_RC[:, lane].T @ self._rows_RC[:, lane])
            for lane in self._lanes
        ]
        self._least = _SMALLEST * float(block.norms @ np.abs(shift) + self._norms.sum())

    def best(self) -> Swap | None:
        """Make the best swap there is; None where none lowers the energy."""
        sharp, soft = 1 - self._rho, self._rho
        half = 0.5 * self._norms
        add = sharp * (half + self._along) + soft * (half + self._norms * self._shift)
        drop = sharp * (half - self._along) + soft * (half - self._norms * self._shift)
        add = np.where(self._kept, add - self._slopes, np.inf)
        drop = np.where(self._kept, np.inf, drop + self._slopes)
        change, closed, opened = -self._least, -1, -1
        for lane, gram in zip(self._lanes, self._grams, strict=True):
            if add[lane].min() + drop[lane].min() - gram.max() >= change:
                continue  # no pair of this lane can be the best
            table = add[lane][:, None] + drop[lane][None, :] - gram
            place = int(np.argmin(table))
            if table.flat[place] < change:
                change = float(table.flat[place])
                i, j = divmod(place, table.shape[1])
                closed, opened = lane.start + i, lane.start + j
        if closed < 0:
            return None
        self._kept[closed], self._kept[opened] = False, True
        self._shift[closed] += 1
        self._shift[opened] -= 1
        self._along += self._rows_RC.T @ (self._rows_RC[:, closed] - self._rows_RC[:, opened])
        return Swap(self._names[closed], self._units[closed], self._units[opened], change)


def _near_boundary(
    lane: NDArray[np.int64], keep: NDArray[np.bool_], ranks: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Units of a lane on both sides of the boundary, in their own order; none where a side is
    empty."""
    by_rank = lane[np.argsort(ranks[lane], kind="stable")]  # most important first
    kept, gone = by_rank[keep[by_rank]], by_rank[~keep[by_rank]]
    if not len(kept) or not len(gone):
        return lane[:0]
    return np.sort(np.concatenate([kept[-count:], gone[:count]]))
