"""Probes go where scores come from, and never cost more than was said."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from prunepath.methods.optin.allotment import Allotment, Pilot, alike, cheapest_chunks, padded
from tests.optin.scenes import scene


def variance(importance: np.ndarray, chunks: list[list[int]], probes: np.ndarray) -> float:
    """Mean relative variance, up to a factor."""
    weight = np.stack([importance[chunk].sum(0) for chunk in chunks])
    return float((weight[probes > 0] / probes[probes > 0]).sum())


def test_no_other_allotment_of_that_price_is_much_better() -> None:
    random = np.random.default_rng(0)
    importance = random.exponential(size=(2, 3)) ** 3
    chunks, costs, budget = [[0], [1]], (0.0, 0.5, 1.0), 9.0
    found = Allotment.of(importance, chunks, costs, budget)
    assert found.spent <= budget
    own = variance(importance, chunks, np.array(found.probes))
    price = np.array([[0.0, 0.25, 0.5]] * 2)
    best = min(
        variance(importance, chunks, np.array([[0, a, b], [0, c, d]]))
        for a, b, c, d in itertools.product(range(1, 33), repeat=4)
        if (np.array([[0, a, b], [0, c, d]]) * price).sum() <= budget
    )
    assert own <= 1.15 * best


@pytest.mark.parametrize("budget", [0.1, 3.0, 24.0, 500.0])
def test_budgets_are_kept_and_everyone_is_probed(budget: float) -> None:
    random = np.random.default_rng(1)
    importance = random.exponential(size=(12, 5)) ** 4
    chunks = [list(range(start, start + 3)) for start in range(0, 12, 3)]
    costs = (0.0, 0.25, 0.5, 0.75, 1.0)
    found = Allotment.of(importance, chunks, costs, budget)
    counts = np.array(found.probes)
    assert (counts[:, 0] == 0).all()
    assert (counts[:, 1:] >= 1).all()
    least = sum(costs)
    assert found.spent <= max(budget, least) + 1e-9
    assert found.spent >= 0.8 * max(budget, least)


def test_nothing_to_tell_them_apart_shares_evenly() -> None:
    found = Allotment.of(np.zeros((4, 2)), [[0, 1], [2, 3]], (0.0, 1.0), 6.0)
    assert found.probes == ((0, 6), (0, 6))


def test_a_pilot_sees_which_sample_a_unit_lives_on() -> None:
    structure = scene("bert").context.structure
    pilot = Pilot.empty(structure, samples=3, features=2)
    found = {}
    for group in structure.finest_groups:
        found[group.name] = torch.tensor([[3.0], [1.0]]).expand(2, group.num_units)
    pilot.add_([2, 0], 1, found, 1.0)
    share = pilot.importance()
    assert share.shape == (3, 2)
    assert share[2, 1] == pytest.approx(0.81)
    assert share[1].max() == 0
    assert share[0, 1] == pytest.approx(0.01)


def test_samples_that_count_alike_run_together() -> None:
    importance = np.array([0.1, 9.0, 0.12, 0.11, 8.0, 0.0])
    assert alike(importance, 2) == [[1, 4], [2, 3], [0], [5]]
    assert alike(importance, 4) == [[1, 4], [0, 2, 3], [5]]
    assert alike(np.zeros(3), 2) == [[0, 1], [2]]


def test_what_counts_alike_runs_by_length() -> None:
    lengths = [5, 50, 6, 49, 5, 48, 6, 50]
    everything = np.ones((8, 2))
    assert cheapest_chunks(everything, lengths, (0.5, 1.0), 2) == [[0, 4], [2, 6], [3, 5], [1, 7]]
    assert padded([0, 3], lengths) == 98
    # Texts that count a hundred times as much get their own probes, however long they are.
    some = everything * np.array([[100.0, 100.0, 1, 1, 1, 1, 1, 1]]).T
    found = cheapest_chunks(some, lengths, (0.5, 1.0), 2)
    assert [0, 1] in found
    assert sorted(itertools.chain(*found)) == list(range(8))
    same = cheapest_chunks(some, [7] * 8, (0.5, 1.0), 2)
    assert same == alike(some.sum(1), 2)


def test_probes_are_dearer_where_there_is_padding() -> None:
    found = Allotment.of(np.ones((4, 1)), [[0, 1], [2, 3]], (1.0,), 10.0, prices=[0.1, 0.9])
    assert found.probes[0][0] > 2 * found.probes[1][0]
    assert found.spent <= 10.0
