"""Axis layouts: every position belongs to the unit a loop over all factors says it does."""

from __future__ import annotations

import re
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
    assert Axis.parse("ffn", SIZES).cuttable
    assert not any(fixed.covers(layout(unit)) for unit in UNITS)


def test_parts_that_are_interleaved_differently_follow_one_another() -> None:
    axis = Axis.parse("kv rep: pair | value ; kv: pair | value", SIZES)
    rep, pair, value = SIZES["rep"], SIZES["pair"], SIZES["value"]
    assert axis.num_parts == 4
    assert axis.size == SIZES["kv"] * (rep + 1) * (pair + value)
    assert axis.factors == {name: SIZES[name] for name in ("kv", "rep", "pair", "value")}
    start = SIZES["kv"] * rep * (pair + value)
    step = pair + value
    expected = [start + kv * step + i for kv in range(SIZES["kv"]) for i in range(pair)]
    assert axis.positions(2).tolist() == expected
    owner = axis.owner(layout("kv value"))
    assert owner[pair : pair + value].tolist() == list(range(value))
    assert owner[start + pair : start + pair + value].tolist() == list(range(value))
    assert owner[start : start + pair].tolist() == [-1] * pair
    assert axis.resized({"pair": 1}).size == SIZES["kv"] * (rep + 1) * (1 + value)


def test_words() -> None:
    axis = layout("kv half pair")
    assert str(axis) == "kv=3 half=2 pair=4"
    assert axis.size_of("pair") == 4
    assert axis.size == 24


def group(unit: str, tied: str = "") -> UnitGroup:
    site = GateSite(module="m", side="input", axis=Axis.parse(unit, SIZES))
    return UnitGroup(
        name=unit,
        kind=unit,
        layer=0,
        place="p",
        series=unit,
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
    factors = {name: SIZES[name] for name in ("kv", "rep", "value")}
    assert place_sizes(groups, factors, selection) == {"kv": 1, "rep": 2, "value": 3}
    assert place_sizes((), factors, selection) == factors
    assert factors == {"kv": 3, "rep": 2, "value": 5}, "the given sizes are left as they are"


FUSED = {
    "qk qk value": "head qk | head qk | head value",
    "head by head": "head: qk | qk | value",
    "gate and up": "2 ffn",
}


@pytest.mark.parametrize("text", FUSED.values(), ids=FUSED)
def test_fused_axes_equal_a_loop(text: str) -> None:
    sizes = {"head": 3, "qk": 2, "value": 4, "ffn": 5}
    axis = Axis.parse(text, sizes)
    labels = fused_positions(text, sizes)
    assert axis.size == len(labels)
    assert axis.factors == {n: sizes[n] for n in sizes if n in re.split(r"\W+", text)}
    for unit in ("head qk", "head value", "head", "ffn"):
        units = AxisLayout.parse(unit, sizes)
        expected = [_unit_of(label, unit.split(), sizes) for label in labels]
        assert axis.covers(units) == any(owner >= 0 for owner in expected)
        assert axis.owner(units).tolist() == expected
    for number in range(len(axis.parts)):
        found = [labels[position] for position in axis.positions(number)]
        own = axis.part(number)
        values = product(*(range(size) for size in own.sizes))
        assert found == [dict(zip(own.names, value, strict=True)) for value in values]


def fused_positions(text: str, sizes: dict[str, int]) -> list[dict[str, int]]:
    """The factors' values at every position, written down by loops."""
    outer, _, inner = text.rpartition(":")
    found = []
    for first in product(*(range(sizes[name]) for name in outer.split())):
        for part in inner.split("|"):
            names = part.split()
            for rest in product(*(range(sizes.get(name, 2)) for name in names)):
                found.append(dict(zip((*outer.split(), *names), (*first, *rest), strict=True)))
    return found


def _unit_of(label: dict[str, int], names: list[str], sizes: dict[str, int]) -> int:
    if not set(names) <= set(label):
        return -1
    index = 0
    for name in names:
        index = index * sizes[name] + label[name]
    return index


def test_a_fused_axis_at_other_sizes() -> None:
    axis = Axis.parse("head: qk | qk | value", {"head": 3, "qk": 2, "value": 4})
    assert str(axis) == "head=3: qk=2 | qk=2 | value=4"
    assert str(axis.resized({"head": 1, "value": 0})) == "head=1: qk=2 | qk=2 | value=0"
    assert axis.resized({"head": 1, "value": 0}).size == 4
    assert str(Axis.fixed(7).resized({"head": 1})) == "7"
