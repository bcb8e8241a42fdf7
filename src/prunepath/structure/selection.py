"""A selection: which units stay. Plain booleans by group, and the shapes that follow from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunepath.errors import RequestError
from prunepath.structure.axes import Axis, AxisLayout, BoolArray, IntArray
from prunepath.structure.units import PlaceInfo, Structure, TensorInfo, UnitGroup

__all__ = [
    "Selection",
    "everything",
    "is_gone",
    "kept_positions",
    "place_sizes",
    "remains",
    "run_positions",
    "settled",
    "sizes_by_place",
    "tensor_positions",
    "untied",
]


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
            if mask.sum() < group.least:
                raise RequestError(
                    f"the selection keeps {mask.sum()} of {group.num_units} units in '{name}', and "
                    f"the model's code runs with {group.least} or more (a router sends every token "
                    f"to as many); keep at least {group.least}"
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
    axis: Axis | AxisLayout, groups: Iterable[UnitGroup], selection: Selection
) -> BoolArray:
    """Which positions of an axis survive: those whose unit is kept in every group it belongs to.

    Args:
        axis: what the axis is made of.
        groups: the groups of the place the tensor lives in.
        selection: units kept.

    Returns:
        Booleans, shape (axis.size,).
    """
    kept = np.ones(axis.size, dtype=np.bool_)
    for group in groups:
        if axis.covers(group.unit) and group.name in selection.keep:
            owner = axis.owner(group.unit)
            kept &= selection.keep[group.name][owner] | (owner < 0)
    return kept


def run_positions(
    axis: Axis | AxisLayout, place: PlaceInfo, groups: Sequence[UnitGroup], selection: Selection
) -> BoolArray:
    """Which positions of an axis the model's own code goes on running: what whole native units
    leave, and one unit of those that lost all. Other positions are kept or filled with zeros.

    Args:
        axis: what the axis is made of, at the sizes the code runs.
        place: the sub-layer.
        groups: its groups.
        selection: units kept.

    Returns:
        Booleans, shape (axis.size,).
    """
    selection = settled(groups, selection)
    own = [group for group in groups if set(untied(group)) <= set(place.native)]
    kept = kept_positions(axis, own, selection)
    parts: list[Any] = [slice(None)]
    if isinstance(axis, Axis) and axis.num_parts:
        parts = [axis.positions(index) for index in range(axis.num_parts)]
    lost = [part for part in parts if not kept[part].any()]
    if not lost:
        return kept
    shells = {}
    for group in own:
        keep = selection.of(group).reshape(group.num_lanes, -1).copy()
        keep[:, 0] |= ~keep.any(axis=1)
        shells[group.name] = keep.reshape(-1)
    left = kept_positions(axis, own, Selection(shells))
    for part in lost:
        kept[part] = left[part]
    return kept


def tensor_positions(
    tensor: TensorInfo,
    dim: int,
    place: PlaceInfo,
    groups: Sequence[UnitGroup],
    selection: Selection,
) -> BoolArray:
    """Which positions of one dimension of a parameter survive."""
    axis = tensor.axes[dim]
    if tensor.whole:
        return run_positions(axis, place, groups, selection)
    return kept_positions(axis, groups, selection)


def is_gone(groups: Iterable[UnitGroup], selection: Selection) -> bool:
    """Whether a place was taken out whole, as one unit."""
    return any(group.is_sublayer and not selection.of(group).all() for group in groups)


def settled(groups: Sequence[UnitGroup], selection: Selection) -> Selection:
    """The selection of one place, with none of its units left where it was taken out whole."""
    if not is_gone(groups, selection):
        return selection
    return Selection({group.name: np.zeros(group.num_units, dtype=np.bool_) for group in groups})


def untied(group: UnitGroup) -> tuple[str, ...]:
    """The factors of a unit that it takes out; those of its lanes stay."""
    return tuple(name for name in group.unit.names if name != group.tied)


def place_sizes(
    groups: Sequence[UnitGroup], factors: Mapping[str, int], selection: Selection
) -> dict[str, int]:
    """Sizes of all factors of a place after a cut; a factor that lost everything has size 0, and
    so have all of a place that was taken out whole.

    Args:
        groups: the groups of the place.
        factors: factor name -> size before.
        selection: units kept.

    Returns:
        factor name -> size.
    """
    if is_gone(groups, selection):
        return dict.fromkeys(factors, 0)
    sizes = dict(factors)
    for group in groups:
        if group.is_sublayer:
            continue
        lanes = selection.of(group).reshape(group.num_lanes, -1)
        sizes[" ".join(untied(group))] = int(lanes.sum(axis=1).max())
    return sizes


def remains(structure: Structure, place: PlaceInfo, selection: Selection) -> bool:
    """Whether a place is still there: some leave whole, each with a unit of another place."""
    found = structure.unit_of_member.get(place.path)
    return found is None or bool(selection.of(found[0])[found[1]])


def sizes_by_place(structure: Structure, selection: Selection) -> dict[str, dict[str, int]]:
    """Sizes of all factors after a cut, by the path of their place; of places that remain."""
    return {
        place.path: place_sizes(structure.groups_by_place[place.path], place.factors, selection)
        for place in structure.places
        if remains(structure, place, selection)
    }
