"""Swaps under a quadratic model: the energy is what it says, and nothing is left to swap."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from prunepath.allocation.quadratic import Block, QuadraticModel, shrinkage
from prunepath.allocation.rearrange import Rearrangement
from prunepath.allocation.swaps import SwapOptions, after_swaps, find_swaps
from prunepath.errors import RequestError
from prunepath.structure.cost import cost_of
from prunepath.structure.selection import Selection, everything
from tests.conformance.families import structure_of
from tests.conformance.selections import select

STRUCTURE = structure_of("llama-untied")
RANKS = {
    group.name: np.random.default_rng(index).permutation(group.num_units)
    for index, group in enumerate(STRUCTURE.groups)
}
EVERY = SwapOptions(candidates=10_000)


def swap_units(chosen: Selection, model: QuadraticModel, *how: Any) -> Rearrangement:
    """All swaps there are made, and the energy on both sides of them."""
    swaps = find_swaps(STRUCTURE, chosen, model, *how)
    made = after_swaps(chosen, swaps)
    return Rearrangement(
        selection=made, swaps=len(swaps), before=model.energy(chosen), after=model.energy(made)
    )


def random_rows(names: list[str], seed: int = 0, count: int = 12) -> dict[str, np.ndarray]:
    """Rows of which those of all groups share a direction."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(count, 1))
    return {
        name: common * rng.normal(size=STRUCTURE.groups_by_name[name].num_units)
        + rng.normal(size=(count, STRUCTURE.groups_by_name[name].num_units))
        for name in names
    }


def block(names: list[str], seed: int = 0, **how: Any) -> Block:
    """A block measured somewhere else than at the dense model, with slopes."""
    rng = np.random.default_rng(seed + 100)
    sizes = {name: STRUCTURE.groups_by_name[name].num_units for name in names}
    return Block(
        rows=random_rows(names, seed),
        slopes={name: rng.normal(size=size) for name, size in sizes.items()},
        closed={name: (rng.random(size) < 0.3).astype(float) for name, size in sizes.items()},
        **how,
    )


def dense_energy(own: Block, selection: Selection) -> float:
    """x^T Q x - c g x with Q written out."""
    q, slopes, d = written_out(own, selection)
    return float(d @ q @ d - slopes @ d)


def written_out(own: Block, selection: Selection) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Q, c g, and how far the gates are from where they were measured."""
    fisher = own.matrix.T @ own.matrix
    q = 0.5 * ((1 - own.rho) * fisher + own.rho * np.diag(np.diag(fisher)))
    none = {name: np.zeros(rows.shape[1]) for name, rows in own.rows.items()}
    closed = np.concatenate([own.closed.get(name, none[name]) for name in own.rows])
    slopes = np.concatenate([own.slopes.get(name, none[name]) for name in own.rows])
    gone = np.concatenate([~selection.keep[name] for name in own.rows]).astype(float)
    return q, slopes, gone - closed


def changes(own: Block, selection: Selection) -> np.ndarray:
    """What every legal swap does to the energy."""
    q, slopes, d = written_out(own, selection)
    offset, where = 0, {}
    for name, rows in own.rows.items():
        where[name] = offset
        offset += rows.shape[1]
    pairs = all_swaps(list(own.rows), selection)
    i = np.array([where[name] + closed for name, closed, _ in pairs])
    j = np.array([where[name] + opened for name, _, opened in pairs])
    push = 2 * q @ d - slopes
    own_i, own_j = np.diag(q)[i], np.diag(q)[j]
    return np.asarray(push[i] - push[j] + own_i + own_j - 2 * q[i, j])


def all_swaps(names: list[str], selection: Selection) -> list[tuple[str, int, int]]:
    found = []
    for name in names:
        group, keep = STRUCTURE.groups_by_name[name], selection.keep[name]
        for lane in np.split(np.arange(group.num_units), group.num_lanes):
            found += [(name, i, j) for i in lane[keep[lane]] for j in lane[~keep[lane]]]
    return found


def swapped(selection: Selection, name: str, closed: int, opened: int) -> Selection:
    keep = {key: mask.copy() for key, mask in selection.keep.items()}
    keep[name][closed], keep[name][opened] = False, True
    return Selection(keep)


KINDS = ["ffn_channel", "vo_coordinate", "query_head"]


@pytest.mark.parametrize("shrink", [0.0, 0.4, None])
@pytest.mark.parametrize("kind", KINDS)
def test_each_swap_is_the_best_of_all_and_none_is_left(kind: str, shrink: float | None) -> None:
    names = [group.name for group in STRUCTURE.of_kind(kind)]
    own = block(names, shrink=shrink)
    chosen = select(STRUCTURE, kind, "ratio 0.3")
    model = QuadraticModel([own])
    swaps = find_swaps(STRUCTURE, chosen, model, RANKS, EVERY)
    now = chosen
    for swap in swaps[:4]:
        before = dense_energy(own, now)
        assert swap.change == pytest.approx(changes(own, now).min(), rel=1e-6)
        now = swapped(now, swap.group, swap.closed, swap.opened)
        assert dense_energy(own, now) - before == pytest.approx(swap.change, rel=1e-6)
    done = swap_units(chosen, model, RANKS, EVERY)
    assert done.swaps == len(swaps) > 0
    assert done.before == pytest.approx(dense_energy(own, chosen))
    assert done.after == pytest.approx(dense_energy(own, done.selection))
    assert done.after < done.before
    assert changes(own, done.selection).min() >= -1e-6 * abs(done.before)
    for name in names:
        group = STRUCTURE.groups_by_name[name]
        lanes = [s.of(group).reshape(group.num_lanes, -1).sum(1) for s in (chosen, done.selection)]
        assert np.array_equal(*lanes)
    assert cost_of(STRUCTURE, chosen) == cost_of(STRUCTURE, done.selection)


@pytest.mark.parametrize("seed", range(6))
def test_units_that_do_nothing_together_reach_the_best_of_all_sets(seed: int) -> None:
    """Brute force over all subsets of a small group."""
    group = STRUCTURE.groups_by_name["layers.0.query_head"]
    rows = np.diag(np.random.default_rng(seed).random(group.num_units) + 0.1)
    own = Block(rows={group.name: rows}, shrink=0.0)
    chosen = everything(STRUCTURE).without([(group, np.array([0, group.lane_width]))])
    done = swap_units(chosen, QuadraticModel([own]), RANKS, EVERY)
    options = []
    for pair in combinations(range(group.num_units), 2):
        if len({unit // group.lane_width for unit in pair}) == 2:
            options.append(
                dense_energy(own, everything(STRUCTURE).without([(group, np.array(pair))]))
            )
    assert done.after == pytest.approx(min(options))


@pytest.mark.parametrize("seed", range(6))
def test_a_small_problem_ends_no_worse_than_it_began_and_near_the_optimum(seed: int) -> None:
    group = STRUCTURE.groups_by_name["layers.0.query_head"]
    own = block([group.name], seed)
    chosen = everything(STRUCTURE).without([(group, np.array([0, group.lane_width]))])
    done = swap_units(chosen, QuadraticModel([own]), RANKS, EVERY)
    energies = sorted(
        dense_energy(own, everything(STRUCTURE).without([(group, np.array(pair))]))
        for pair in combinations(range(group.num_units), 2)
        if len({unit // group.lane_width for unit in pair}) == 2
    )
    assert done.after <= done.before
    assert done.after == pytest.approx(energies[0]) or done.after == pytest.approx(energies[1])


def test_what_other_layers_lost_counts() -> None:
    """A unit that repeats what another layer lost is dear, one that cancels it is free."""
    first, second = (STRUCTURE.groups_by_name[f"layers.{i}.ffn_channel"] for i in (0, 1))
    rng = np.random.default_rng(0)
    rows = {group.name: 3 * rng.normal(size=(400, group.num_units)) for group in (first, second)}
    rows[first.name][:, 0] = rng.normal(size=400)
    rows[second.name][:, 4] = rows[first.name][:, 0]
    rows[second.name][:, 5] = -rows[first.name][:, 0]
    chosen = everything(STRUCTURE).without([(first, np.array([0])), (second, np.array([4]))])
    joint = QuadraticModel([Block(rows=rows, shrink=0.0)])
    apart = QuadraticModel([Block(rows={k: v}, shrink=0.0) for k, v in rows.items()])
    done = swap_units(chosen, joint, RANKS, EVERY)
    assert np.flatnonzero(~done.selection.of(second)).tolist() == [5]
    assert done.after == pytest.approx(0, abs=1e-9)
    assert swap_units(chosen, apart, RANKS, EVERY).swaps == 0


def test_only_candidates_move_and_no_more_than_asked() -> None:
    names = [group.name for group in STRUCTURE.of_kind("ffn_channel")]
    chosen = select(STRUCTURE, "ffn_channel", "ratio 0.3")
    model = QuadraticModel([block(names)])
    few = SwapOptions(candidates=2)
    done = swap_units(chosen, model, RANKS, few)
    for name in names:
        keep = chosen.keep[name]
        order = np.argsort(RANKS[name])
        near = {*order[keep[order]][-2:].tolist(), *order[~keep[order]][:2].tolist()}
        assert set(np.flatnonzero(keep != done.selection.keep[name]).tolist()) <= near
    assert len(find_swaps(STRUCTURE, chosen, model, RANKS, SwapOptions(max_swaps=3))) == 3
    every = swap_units(chosen, model, RANKS, EVERY)
    assert every.after < done.after
    again = swap_units(chosen, model, RANKS, EVERY)
    assert all(np.array_equal(again.selection.keep[n], every.selection.keep[n]) for n in names)
    with pytest.raises(RequestError, match="candidates is 0; it must be at least 1"):
        SwapOptions(candidates=0)


@pytest.mark.parametrize("name", ["ratio 0", "all emptied"])
def test_where_there_is_no_choice_nothing_moves(name: str) -> None:
    chosen = select(STRUCTURE, "ffn_channel", name)
    names = [group.name for group in STRUCTURE.of_kind("ffn_channel")]
    done = swap_units(chosen, QuadraticModel([block(names)]), RANKS)
    assert done.swaps == 0
    assert done.before == done.after


def test_pairs_are_shrunk_as_far_as_they_are_noise() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(64, 200))
    signal = rng.normal(size=(64, 1)) @ rng.normal(size=(1, 200))
    assert shrinkage(noise) > 0.95
    assert shrinkage(signal + 0.1 * noise) < 0.1
    assert shrinkage(noise[:1]) == 1.0
    few = noise[:, :5] + noise[:, 5:6]
    fisher = [np.outer(row, row) for row in few]
    variance = np.var(fisher, axis=0, ddof=1) * len(few)
    off = ~np.eye(5, dtype=bool)
    expected = variance[off].sum() / np.square(sum(fisher))[off].sum()
    assert shrinkage(few) == pytest.approx(float(expected))
