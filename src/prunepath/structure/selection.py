"""A selection: which units stay. Plain booleans by group, and the shapes that follow from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from prunepath.errors import RequestError
from prunepath.structure.axes import AxisLayout, BoolArray, IntArray
from prunepath.structure.units import Structure, UnitGroup

__all__ = ["Selection", "everything", "kept_positions", "place_sizes"]


@dataclass(frozen=True)
class Selection:
    """Units kept under a budget.

    Args:
        keep: group name -> booleans, shape (num_units,); a group that is absent is kept whole.
    """

    keep: Mapping[str, BoolArray]

    def of(self, group: UnitGroup) -> BoolArray:
        """Booleans of one group, shape (num_units,)."""
        found = self.keep.get(group.name)
        return np.ones(group.num_units, dtype=np.bool_) if found is None else found

    def issubset(self, other: Selection, structure: Structure) -> bool:
        """Whether everything kept here is kept there."""
        return all(not np.any(self.of(g) & ~other.of(g)) for g in structure.groups)

    def without(self, removed: Iterable[tuple[UnitGroup, IntArray]]) -> Selection:
        """A new selection with some units taken out."""
        keep = {name: mask.copy() for name, mask in self.keep.items()}
        for group, units in removed:
            if group.name not in keep:
                keep[group.name] = np.ones(group.num_units, dtype=np.bool_)
            keep[group.name][units] = False
        return Selection(keep)

    def validate(self, structure: Structure) -> None:
        """Check names, lengths and that tied lanes end equally wide.

        Raises:
            RequestError: naming the group and what was found.
        """
        for name, mask in self.keep.items():
            group = structure.groups_by_name.get(name)
            if group is None:
                raise RequestError(
                    f"the selection names the group '{name}', which this model does not have; "
                    f"its groups look like '{structure.groups[0].name}'"
                )
            if mask.shape != (group.num_units,):
                raise RequestError(
                    f"the selection has {mask.size} flags for '{name}', which has "
                    f"{group.num_units} units; give one flag per unit"
                )
            widths = mask.reshape(group.num_lanes, -1).sum(axis=1)
            if widths.min() != widths.max():
                raise RequestError(
                    f"the selection keeps {widths.tolist()} units per {group.tied} in '{name}'; "
                    "all of them must keep equally many"
                )


def everything(structure: Structure) -> Selection:
    """The dense selection."""
    return Selection({g.name: np.ones(g.num_units, dtype=np.bool_) for g in structure.groups})


def kept_positions(
    layout: AxisLayout, groups: Iterable[UnitGroup], selection: Selection
) -> BoolArray:
    """Which positions of an axis survive: those whose unit is kept in every group it belongs to.

    Args:
        layout: what the axis is made of.
        groups: the groups of the place the tensor lives in.
        selection: units kept.

    Returns:
        Booleans, shape (layout.size,).
    """
    kept = np.ones(layout.size, dtype=np.bool_)
    for group in groups:
        if layout.covers(group.unit) and group.name in selection.keep:
            kept &= selection.keep[group.name][layout.owner(group.unit)]
    return kept


def place_sizes(
    groups: Iterable[UnitGroup], layouts: Iterable[AxisLayout], selection: Selection
) -> dict[str, int]:
    """Sizes of all factors of a place after a cut; a factor that lost everything has size 0.

    Args:
        groups: the groups of the place.
        layouts: the axes whose factors are asked for.
        selection: units kept.

    Returns:
        factor name -> size.
    """
    sizes = {n: s for layout in layouts for n, s in zip(layout.names, layout.sizes, strict=True)}
    for group in groups:
        own = tuple(name for name in group.unit.names if name != group.tied)
        lanes = selection.of(group).reshape(group.num_lanes, -1)
        sizes[" ".join(own)] = int(lanes.sum(axis=1).max())
    return sizes
