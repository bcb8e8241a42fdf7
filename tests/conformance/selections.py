"""What may be left of a model: one line adds a case that every family and unit kind then meets."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.random import Generator

from prunepath.structure.axes import BoolArray
from prunepath.structure.selection import Selection, everything
from prunepath.structure.units import Structure, UnitGroup

# (groups that may be cut, source of randomness) -> flags of the groups that are cut
Chooser = Callable[[list[UnitGroup], Generator], dict[str, BoolArray]]


def keep_random(group: UnitGroup, width: int, rng: Generator) -> BoolArray:
    """Flags that keep `width` random units in every lane, other ones in each."""
    keep = np.zeros((group.num_lanes, group.lane_width), dtype=np.bool_)
    for lane in keep:
        lane[rng.permutation(group.lane_width)[:width]] = True
    return keep.reshape(-1)


def _removing(ratio: float) -> Chooser:
    """Every group loses that part of its lanes, and keeps one unit in each, or as many as the
    model's code runs with."""

    def choose(groups: list[UnitGroup], rng: Generator) -> dict[str, BoolArray]:
        widths = {group.name: round(group.lane_width * (1 - ratio)) for group in groups}
        return {
            group.name: keep_random(group, max(1, group.least, widths[group.name]), rng)
            for group in groups
        }

    return choose


def _emptied(groups: Iterable[UnitGroup]) -> dict[str, BoolArray]:
    """Nothing is left, or as little as the model's code runs with: the last units."""
    return {group.name: np.arange(group.num_units)[::-1] < group.least for group in groups}


def _first_layer_emptied(groups: list[UnitGroup], rng: Generator) -> dict[str, BoolArray]:
    """One group of each kind is gone; the others lose a little."""
    first = min(group.layer for group in groups)
    return _removing(0.2)(groups, rng) | _emptied(g for g in groups if g.layer == first)


SUBLAYERS = ("attention", "ffn")

SELECTIONS: dict[str, Chooser] = {
    "ratio 0": lambda groups, rng: {},
    "ratio 0.3": _removing(0.3),
    "ratio 0.7": _removing(0.7),
    "one group emptied": _first_layer_emptied,
    "all emptied": lambda groups, rng: _emptied(groups),
}


def changes_something(kind: str, name: str) -> bool:
    """Whether a selection of the table cuts that kind: of a single unit nothing goes by ratio."""
    return kind not in SUBLAYERS or name.endswith("emptied")


def select(structure: Structure, kind: str, name: str, seed: int = 0) -> Selection:
    """A selection of the table.

    Args:
        structure: the dense model's structure.
        kind: the unit kind that is cut, or `"all kinds"`.
        name: a key of `SELECTIONS`.
        seed: of the random choice.
    """
    groups = [group for group in structure.groups if kind in (group.kind, "all kinds")]
    chosen = SELECTIONS[name](groups, np.random.default_rng(seed))
    return Selection({**everything(structure).keep, **chosen})
