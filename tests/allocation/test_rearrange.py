"""Mask rearrangement: counts stay, the damage falls, and nothing is left to exchange."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from prunepath.allocation.rearrange import rearrange
from prunepath.structure.cost import cost_of
from prunepath.structure.selection import Selection, everything
from prunepath.structure.units import UnitGroup
from tests.conformance.families import structure_of
from tests.conformance.selections import select

STRUCTURE = structure_of("llama-untied")
KINDS = STRUCTURE.kinds


def random_rows(seed: int = 0, count: int = 12, common: float = 1.0) -> dict[str, np.ndarray]:
    """Gradients that share a direction, so that units do much together."""
    rng = np.random.default_rng(seed)
    return {
        group.name: common * rng.normal(size=(count, 1)) * rng.normal(size=group.num_units)
        + rng.normal(size=(count, group.num_units))
        for group in STRUCTURE.groups
    }


def damage(rows: np.ndarray, keep: np.ndarray) -> float:
    return 0.5 * float(np.square(rows[:, ~keep].sum(1)).sum())


def counts(group: UnitGroup, selection: Selection) -> list[int]:
    lanes = selection.of(group).reshape(group.num_lanes, -1)
    found: list[int] = lanes.sum(1).tolist()
    return found


@pytest.mark.parametrize("name", ["ratio 0.3", "ratio 0.7", "one group emptied"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_exchange_of_two_units_is_left(kind: str, name: str) -> None:
    rows = random_rows()
    chosen = select(STRUCTURE, kind, name)
    done = rearrange(STRUCTURE, chosen, rows)
    assert done.after <= done.before
    totals = [0.0, 0.0]
    for group in STRUCTURE.groups:
        assert counts(group, chosen) == counts(group, done.selection)
        keep, gradients = done.selection.of(group), rows[group.name]
        if keep.all():
            continue
        totals[0] += damage(gradients, chosen.of(group))
        totals[1] += damage(gradients, keep)
        for lane in np.split(np.arange(group.num_units), group.num_lanes):
            for i in lane[keep[lane]]:
                for j in lane[~keep[lane]]:
                    other = keep.copy()
                    other[i], other[j] = False, True
                    assert damage(gradients, other) >= damage(gradients, keep) * (1 - 1e-6)
    assert totals == pytest.approx([done.before, done.after])
    assert cost_of(STRUCTURE, chosen) == cost_of(STRUCTURE, done.selection)


def test_it_finds_what_cancels() -> None:
    channels = STRUCTURE.groups_by_name["layers.0.ffn_channel"]
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(8, channels.num_units))
    gradients[:, 2:] *= 3
    gradients[:, 1] = -gradients[:, 0]  # free together
    chosen = everything(STRUCTURE).without([(channels, np.array([0, 7]))])
    done = rearrange(STRUCTURE, chosen, {channels.name: gradients})
    assert np.flatnonzero(~done.selection.of(channels)).tolist() == [0, 1]
    assert done.after == pytest.approx(0, abs=1e-12)
    assert done.swaps == 1


def test_close_to_the_best_subset() -> None:
    group = STRUCTURE.groups_by_name["layers.1.query_head"]  # 2 lanes of 2
    for seed in range(5):
        rows = random_rows(seed)
        chosen = everything(STRUCTURE).without([(group, np.array([0, 2]))])
        done = rearrange(STRUCTURE, chosen, rows)
        options = []
        for pair in combinations(range(4), 2):
            if {unit // 2 for unit in pair} == {0, 1}:
                keep = np.ones(4, dtype=bool)
                keep[list(pair)] = False
                options.append(damage(rows[group.name], keep))
        # One swap at a time, so the best of four is not always reached, but one is never the worst.
        assert min(options) <= done.after < max(options)


def test_the_same_every_time_and_untouched_inputs() -> None:
    chosen = select(STRUCTURE, "ffn_channel", "ratio 0.3")
    before = {name: mask.copy() for name, mask in chosen.keep.items()}
    one, two = (rearrange(STRUCTURE, chosen, random_rows()) for _ in range(2))
    assert one.swaps == two.swaps > 0
    for name, mask in before.items():
        assert np.array_equal(one.selection.keep[name], two.selection.keep[name])
        assert np.array_equal(chosen.keep[name], mask)


@pytest.mark.parametrize("name", ["ratio 0", "all emptied"])
def test_where_there_is_no_choice_nothing_moves(name: str) -> None:
    chosen = select(STRUCTURE, "all kinds", name)
    done = rearrange(STRUCTURE, chosen, random_rows())
    assert done.swaps == 0
    assert done.before == done.after
    assert all(np.array_equal(done.selection.of(g), chosen.of(g)) for g in STRUCTURE.groups)


def test_groups_without_rows_stay() -> None:
    chosen = select(STRUCTURE, "all kinds", "ratio 0.3")
    only = {"layers.0.ffn_channel": random_rows()["layers.0.ffn_channel"]}
    done = rearrange(STRUCTURE, chosen, only)
    moved = {
        group.name
        for group in STRUCTURE.groups
        if not np.array_equal(done.selection.of(group), chosen.of(group))
    }
    assert moved == {"layers.0.ffn_channel"}


def test_a_thousand_channels_take_no_time() -> None:
    import time
    from dataclasses import replace

    from prunepath.structure.axes import AxisLayout

    group = STRUCTURE.groups_by_name["layers.0.ffn_channel"]
    wide = replace(group, unit=AxisLayout(("ffn",), (2048,)))
    structure = replace(STRUCTURE, groups=(wide,))
    rng = np.random.default_rng(0)
    chosen = Selection({wide.name: rng.random(2048) < 0.5})
    start = time.perf_counter()
    done = rearrange(structure, chosen, {wide.name: rng.normal(size=(256, 2048))})
    assert time.perf_counter() - start < 20
    assert done.after < 0.5 * done.before
