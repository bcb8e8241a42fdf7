"""Axis layouts: every position belongs to the unit a loop over all factors says it does."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from prunepath.structure.axes import Axis, AxisLayout
from prunepath.structure.selection import Selection, kept_positions, place_sizes
from prunepath.structure.units import GateSite, UnitGroup

SIZES = {"kv": 3, "rep": 2, "half": 2, "pair": 4, "value": 5, "ffn": 7}
AXES = ["kv rep half pair", "kv half pair", "kv value", "kv rep value", "ffn"]
UNITS = ["kv pair", "kv value", "kv rep", "kv", "ffn"]


def layout(text: str) -> AxisLayout:
    return AxisLayout.parse(text, SIZES)


def brute_force_owner(axis: AxisLayout, unit: AxisLayout) -> list[int]:
    units = list(product(*(range(size) for size in unit.sizes)))
    owners = []
    for position in product(*(range(size) for size in axis.sizes)):
        value = dict(zip(axis.names, position, strict=True))
        owners.append(units.index(tuple(value[name] for name in unit.names)))
    return owners


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("axis", AXES)
def test_owner_equals_a_loop(axis: str, unit: str) -> None:
    found, units = layout(axis), layout(unit)
    covered = set(unit.split()) <= set(axis.split())
    assert found.covers(units) == covered
    if covered:
        owner = found.owner(units)
        assert owner.tolist() == brute_force_owner(found, units)
        assert np.bincount(owner, minlength=units.size).tolist() == (
            [found.size // units.size] * units.size
        )


def test_owner_is_shared_and_cannot_be_written() -> None:
    owner = layout("kv value").owner(layout("kv"))
    with pytest.raises(ValueError, match="read-only"):
        owner[0] = 1


def test_fixed_axis_is_never_cut() -> None:
    fixed = Axis.fixed(12)
    assert fixed.size == 12
    assert not fixed.cuttable
    assert layout("ffn").cuttable
    assert not any(fixed.covers(layout(unit)) for unit in UNITS)


def test_words() -> None:
    axis = layout("kv half pair")
    assert str(axis) == "kv=3 half=2 pair=4"
    assert axis.size_of("pair") == 4
    assert axis.size == 24


def group(unit: str, tied: str = "") -> UnitGroup:
    site = GateSite(module="m", side="input", layout=layout(unit))
    return UnitGroup(
        name=unit,
        kind=unit,
        layer=0,
        place="p",
        unit=layout(unit),
        tied=tied,
        gate=site,
        consumer="",
    )


def test_a_position_stays_if_every_group_it_belongs_to_keeps_it() -> None:
    groups = [group("kv value", "kv"), group("kv rep", "kv"), group("kv")]
    rng = np.random.default_rng(0)
    selection = Selection({g.name: rng.random(g.num_units) < 0.6 for g in groups})
    axis = layout("kv rep value")
    kept = kept_positions(axis, groups, selection).reshape(3, 2, 5)
    for kv, rep, value in product(range(3), range(2), range(5)):
        expected = (
            selection.keep["kv value"][kv * 5 + value]
            and selection.keep["kv rep"][kv * 2 + rep]
            and selection.keep["kv"][kv]
        )
        assert kept[kv, rep, value] == expected


def test_sizes_after_a_cut() -> None:
    groups = [group("kv value", "kv"), group("kv")]
    keep_values = np.tile([True, False, True, True, False], 3)
    selection = Selection({"kv value": keep_values, "kv": np.array([True, False, False])})
    found = place_sizes(groups, [layout("kv rep value")], selection)
    assert found == {"kv": 1, "rep": 2, "value": 3}
    assert place_sizes((), [layout("kv rep value")], selection) == {"kv": 3, "rep": 2, "value": 5}
