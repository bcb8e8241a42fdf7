"""Every cost is compared with brute force: least squares, and a measured weighted error."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from prunepath.methods.elimination import eliminate, eliminate_with_refit, median_scale
from tests.search.problems import LinearMap, random_block, removal_order

OWNERS = {
    "one column each": np.arange(8),
    "two columns, side by side": np.repeat(np.arange(5), 2),
    "two columns, interleaved": np.tile(np.arange(4), 2),
    "three columns": np.tile(np.arange(3), 3),
}


@pytest.mark.parametrize("owner", OWNERS.values(), ids=OWNERS)
@pytest.mark.parametrize("damping", [1e-6, 1e-2])
def test_first_removal_costs_what_least_squares_says(owner: np.ndarray, damping: float) -> None:
    problem = LinearMap(owner)
    num_units = int(owner.max()) + 1
    expected = [problem.error({unit}, damping) for unit in range(num_units)]
    for unit in range(num_units):  # a lane per unit: each is the first of its lane
        damage = eliminate_with_refit(*problem.arguments(), num_units, damping=damping)
        np.testing.assert_allclose(damage[unit], expected[unit], rtol=1e-9)


@pytest.mark.parametrize("owner", OWNERS.values(), ids=OWNERS)
def test_each_removal_costs_what_the_error_grows_by(owner: np.ndarray) -> None:
    problem, damping = LinearMap(owner, seed=1), 1e-2
    num_units = int(owner.max()) + 1
    removed: set[int] = set()
    level = 0.0
    damage = eliminate_with_refit(*problem.arguments(), 1, rounds=num_units, damping=damping)
    for unit in removal_order(damage, range(num_units)):
        before = problem.error(removed, damping)
        costs = {u: problem.error(removed | {u}, damping) - before for u in range(num_units)}
        assert unit == min(costs.keys() - removed, key=costs.__getitem__)
        level = max(level, costs[unit])
        np.testing.assert_allclose(damage[unit], level, rtol=1e-7)
        removed.add(unit)


def test_costs_of_a_sequence_add_up_to_the_error_of_the_whole_cut() -> None:
    # Scales far apart: every removal is dearer than the last, so the record is the costs.
    problem, damping = LinearMap(np.arange(6), seed=1), 1e-3
    problem.inputs *= 3.0 ** np.array([2, 5, 1, 4, 0, 3])
    damage = eliminate_with_refit(*problem.arguments(), 1, rounds=6, damping=damping)
    order = removal_order(damage, range(6))
    for count in range(1, 7):
        expected = problem.error(set(order[:count]), damping)
        np.testing.assert_allclose(damage[order[:count]].sum(), expected, rtol=1e-7)


def test_lanes_lose_one_unit_each_in_every_round_and_are_repaired_together() -> None:
    problem, damping = LinearMap(np.arange(8), seed=2), 1e-2
    damage = eliminate_with_refit(*problem.arguments(), 2, rounds=4, damping=damping)
    first = [removal_order(damage, lane)[0] for lane in (range(4), range(4, 8))]
    second = [removal_order(damage, lane)[1] for lane in (range(4), range(4, 8))]
    gone = problem.error(set(first), damping)
    for place, unit in enumerate(second):
        growth = problem.error({*first, unit}, damping) - gone
        np.testing.assert_allclose(
            damage[unit], max(growth, float(damage[first[place]])), rtol=1e-7
        )


def test_rounds_take_several_units_at_once() -> None:
    problem = LinearMap(np.arange(8))
    fine = eliminate_with_refit(*problem.arguments(), 1, rounds=8)
    coarse = eliminate_with_refit(*problem.arguments(), 1, rounds=2)
    assert removal_order(fine, range(8))[0] == removal_order(coarse, range(8))[0]
    assert coarse.isfinite().all()
    assert len(set(coarse.tolist())) == 8


def test_of_two_equal_channels_one_goes_first_and_is_repaired_by_the_other() -> None:
    problem = LinearMap(np.arange(6))
    problem.inputs = np.concatenate([problem.inputs, problem.inputs[:, :3]], axis=1)
    problem.weight = np.concatenate([problem.weight, problem.weight[:, :3]], axis=1)
    problem.owner = np.arange(9)
    weight, moment, gamma, owner = problem.arguments()
    repaired = eliminate_with_refit(weight, moment, gamma, owner, 1, rounds=9, damping=1e-6)
    early = removal_order(repaired, range(9))[:3]
    assert {unit % 6 for unit in early} == {0, 1, 2}  # one of each pair
    assert repaired[early].max() < 1e-4 * repaired.median()
    plain = eliminate(moment * (weight.T @ gamma @ weight), 1)
    assert {unit % 6 for unit in removal_order(plain, range(9))[:3]} != {0, 1, 2}


def test_massive_activations_do_not_swamp_the_rest() -> None:
    # One channel with a million times the second moment: a ridge relative to the mean would be
    # ten thousand times the other channels and leave them no repair at all.
    problem = LinearMap(np.arange(9), rows=200)
    problem.inputs[:, 4] = problem.inputs[:, 0] + 1e-4 * problem.inputs[:, 4]  # redundant
    problem.inputs[:, 8] *= 1e3
    damage = eliminate_with_refit(*problem.arguments(), 1, rounds=9, damping=1e-2)
    order = removal_order(damage, range(9))
    assert order[0] in (0, 4)
    assert order[-1] == 8
    np.testing.assert_allclose(damage[order[0]], problem.error({order[0]}, 1e-2), rtol=1e-7)
    assert damage[order[0]] < 0.02 * damage[:8].median()
    by_mean = 1e-2 * problem.moment.trace() / 9 / problem.ridge(1)
    swamped = eliminate_with_refit(*problem.arguments(), 1, rounds=9, damping=by_mean)
    assert swamped[order[0]] > 10 * damage[order[0]]


def test_the_scale_is_the_median_of_what_is_alive() -> None:
    assert median_scale(torch.tensor([0.0, 0.0, 0.0, 2.0, 3.0, 1e6])) == 3.0
    assert median_scale(torch.zeros(3)) == 1.0


def test_dead_channels_go_first_and_stay_finite() -> None:
    problem = LinearMap(np.arange(6))
    problem.inputs[:, 2] = 0
    damage = eliminate_with_refit(*problem.arguments(), 1, rounds=6)
    assert removal_order(damage, range(6))[0] == 2
    assert damage.isfinite().all()


@pytest.mark.parametrize("with_zeros", [False, True], ids=["dense weight", "repaired weight"])
@pytest.mark.parametrize("num_lanes", [1, 2])
def test_an_order_continues_from_units_already_out(num_lanes: int, with_zeros: bool) -> None:
    problem, damping = LinearMap(np.tile(np.arange(6), 2), seed=3), 1e-2
    lanes = [range(6)] if num_lanes == 1 else [range(3), range(3, 6)]
    whole = eliminate_with_refit(*problem.arguments(), num_lanes, rounds=6, damping=damping)
    out = [unit for lane in lanes for unit in removal_order(whole, lane)[: 2 // num_lanes]]
    removed = torch.zeros(6, dtype=torch.bool)
    removed[out] = True
    if with_zeros:
        problem.weight = problem.refitted(set(out), damping)
    again = eliminate_with_refit(
        *problem.arguments(),
        num_lanes,
        rounds=6,
        damping=damping,
        removed=removed,
        damage=torch.where(removed, whole, torch.nan),
    )
    np.testing.assert_allclose(again, whole, rtol=1e-7)


@pytest.mark.parametrize("num_lanes", [1, 2, 3])
def test_without_repair_each_removal_costs_what_the_quadratic_grows_by(num_lanes: int) -> None:
    block = random_block(6)
    damage = eliminate(block, num_lanes)
    width = 6 // num_lanes
    lanes = [range(start, start + width) for start in range(0, 6, width)]
    orders = [removal_order(damage, lane) for lane in lanes]
    gone = torch.zeros(6, dtype=torch.float64)
    level = [0.0] * num_lanes
    for units in zip(*orders, strict=True):
        before = float(gone @ block @ gone / 2)
        for place, unit in enumerate(units):
            alone = gone.clone()
            alone[unit] = 1
            level[place] = max(level[place], float(alone @ block @ alone / 2) - before)
            np.testing.assert_allclose(damage[unit], level[place], rtol=1e-7)
        gone[list(units)] = 1


def test_without_repair_the_cheapest_unit_goes_first_at_every_turn() -> None:
    block = random_block(7, seed=4)
    order = removal_order(eliminate(block, 1), range(7))
    gone = torch.zeros(7, dtype=torch.bool)
    for unit in order:
        cost = block.diagonal() / 2 + block[gone].sum(0)
        assert unit == int(cost.masked_fill(gone, torch.inf).argmin())
        gone[unit] = True


def test_a_given_order_is_kept_and_priced_on_the_same_quadratic() -> None:
    block = random_block(6)
    order = torch.tensor([5, 0, 3, 1, 4, 2])
    damage = eliminate(block, 2, order=order)
    assert removal_order(damage, range(3)) == [0, 1, 2]
    assert removal_order(damage, range(3, 6)) == [5, 3, 4]
    np.testing.assert_allclose(damage[5], block[5, 5] / 2)


def test_without_repair_an_order_continues_from_units_already_out() -> None:
    block = random_block(6)
    whole = eliminate(block, 1)
    removed = torch.zeros(6, dtype=torch.bool)
    removed[removal_order(whole, range(6))[:2]] = True
    again = eliminate(block, 1, removed=removed, damage=whole)
    np.testing.assert_allclose(again, whole, rtol=1e-12)


def test_damage_increases_strictly_even_where_removals_get_cheaper() -> None:
    # Each removal makes the next one free: the record may not fall, and ties would lose the order.
    block = torch.eye(4, dtype=torch.float64) - 0.25
    damage = eliminate(block, 1)
    assert len(set(damage.tolist())) == 4
    assert damage.max() <= damage.min() * (1 + 1e-8)
