"""Ladders count exactly; curves are brute force, evolution never worse, shares by hand."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from prunepath.allocation import curves as module
from prunepath.allocation.allocate import allocate
from prunepath.allocation.budget import Budget, metric_value
from prunepath.allocation.curves import Curve, cheapest_counts, read_curves, summed
from prunepath.allocation.evolution import evolve, mutated
from prunepath.allocation.ladders import Ladders
from prunepath.allocation.rules import EvolutionSettings
from prunepath.allocation.shares import kept_shares, share_counts
from prunepath.allocation.steps import StepOptions, build_steps
from prunepath.structure.cost import cost_of
from prunepath.structure.selection import everything
from tests.rules.models import MODELS, Tiny, ready

LENGTH = 16
FINE = StepOptions(multiple=4, floor=4, sequence_length=LENGTH)


def every_kind(tiny: Tiny) -> StepOptions:
    return StepOptions(kinds=tiny.structure.kinds, multiple=4, floor=0, sequence_length=LENGTH)


def ladders_of(tiny: Tiny, options: StepOptions = FINE, metric: str = "params") -> Ladders:
    return Ladders(tiny.structure, build_steps(tiny.path, options), metric, LENGTH)


def random_counts(ladders: Ladders, rng: Any) -> tuple[int, ...]:
    return tuple(int(rng.integers(ladders.height(i) + 1)) for i in range(len(ladders)))


def random_curves(ladders: Ladders, rng: Any) -> list[Curve]:
    """Curves that bend upwards, with plateaus."""
    found = []
    for index in range(len(ladders)):
        steps = ladders.height(index)
        saved = np.array([ladders.saved(index, count) for count in range(steps + 1)])
        rise = np.sort(rng.gamma(0.3, size=steps)) * (rng.random(steps) > 0.2)
        found.append(Curve(saved, np.concatenate([[0.0], np.cumsum(rise)])))
    return found


@pytest.mark.parametrize("metric", ["params", "macs", "memory"])
@pytest.mark.parametrize("name", MODELS)
def test_what_ladders_save_adds_up_exactly(name: str, metric: str) -> None:
    tiny, rng = ready(name), np.random.default_rng(0)
    dense = metric_value(
        cost_of(tiny.structure, everything(tiny.structure), LENGTH), metric, LENGTH
    )
    for options in (FINE, every_kind(tiny)):
        ladders = ladders_of(tiny, options, metric)
        for _ in range(12):
            counts = random_counts(ladders, rng)
            selection = ladders.selection(counts)
            selection.validate(tiny.structure)
            cost = metric_value(cost_of(tiny.structure, selection, LENGTH), metric, LENGTH)
            assert ladders.total(counts) == dense - cost
            assert ladders.counts(selection) == counts


@pytest.mark.parametrize("name", MODELS)
def test_the_order_is_a_prefix_of_every_ladder(name: str) -> None:
    tiny = ready(name)
    ladders = ladders_of(tiny)
    found = allocate(tiny.path, Budget.from_ratio(0.3), FINE)
    again = ladders.selection(ladders.counts(found.selection))
    assert all((again.of(g) == found.selection.of(g)).all() for g in tiny.structure.groups)


def test_giving_back_stops_at_the_budget() -> None:
    ladders, rng = ladders_of(ready("decoder")), np.random.default_rng(1)
    for _ in range(20):
        counts = random_counts(ladders, rng)
        required = ladders.total(counts) * rng.random()
        order = list(rng.permutation(len(ladders)))
        left = ladders.give_back(counts, required, order)
        assert ladders.total(left) >= required
        for index, count in enumerate(left):
            assert count <= counts[index]
            fewer = [*left[:index], count - 1, *left[index + 1 :]]
            assert count == 0 or ladders.total(fewer) < required


@pytest.mark.parametrize("seed", range(4))
def test_the_least_sum_is_that_of_brute_force(seed: int) -> None:
    tiny, rng = ready("encoder"), np.random.default_rng(seed)
    options = StepOptions(multiple=8, floor=8, sequence_length=LENGTH)
    ladders = ladders_of(tiny, options)
    curves = random_curves(ladders, rng)
    heights = [range(ladders.height(index) + 1) for index in range(len(ladders))]
    every = list(product(*heights))
    totals = np.array([ladders.total(counts) for counts in every])
    sums = np.array([summed(curves, counts) for counts in every])
    for share in (0.05, 0.3, 0.5, 0.77, 1.0):
        required = share * totals.max()
        found = cheapest_counts(ladders, curves, required)
        assert found is not None
        assert ladders.total(found) >= required
        assert summed(curves, found) == pytest.approx(sums[totals >= required].min())


def test_bins_that_are_too_wide_never_save_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny, rng = ready("decoder"), np.random.default_rng(0)
    ladders = ladders_of(tiny)
    curves = random_curves(ladders, rng)
    most = sum(ladders.most(index) for index in range(len(ladders)))
    exact = [cheapest_counts(ladders, curves, share * most) for share in (0.2, 0.5, 0.8)]
    monkeypatch.setattr(module, "_BINS", 60)
    for share, best in zip((0.2, 0.5, 0.8), exact, strict=True):
        found = cheapest_counts(ladders, curves, share * most)
        assert found is not None
        assert best is not None
        assert ladders.total(found) >= share * most
        assert summed(curves, found) >= summed(curves, best) - 1e-12
    monkeypatch.setattr(module, "_BINS", 3)
    assert cheapest_counts(ladders, curves, most) is None, "rounded savings do not reach that far"


def test_whole_sublayers_are_a_knapsack() -> None:
    tiny = ready("decoder")
    ladders = ladders_of(tiny, StepOptions(kinds=("attention", "ffn"), sequence_length=LENGTH))
    worth = [3.0, 1.0, 2.0, 0.5]
    curves = read_curves(ladders, 9, lambda index, count: worth[index] * count)
    assert [len(curve.distance) for curve in curves] == [2, 2, 2, 2]
    saved = [ladders.most(index) for index in range(4)]
    for required in (1, saved[0], saved[1], saved[0] + saved[1], sum(saved)):
        fits = [
            sum(w for w, taken in zip(worth, each, strict=True) if taken)
            for each in product((0, 1), repeat=4)
            if sum(s for s, taken in zip(saved, each, strict=True) if taken) >= required
        ]
        found = cheapest_counts(ladders, curves, required)
        assert found is not None
        assert summed(curves, found) == min(fits)


def test_curves_rise_and_are_straight_between_what_was_measured() -> None:
    ladders = ladders_of(ready("decoder"))
    asked: list[tuple[int, int]] = []

    def distance(index: int, count: int) -> float:
        asked.append((index, count))
        return float(-count if index else count)

    curves = read_curves(ladders, 3, distance)
    assert [count for index, count in asked if index == 0][-1] == ladders.height(0)
    assert len(asked) <= 2 * len(ladders)
    for index, curve in enumerate(curves):
        assert curve.distance[0] == 0
        assert (np.diff(curve.distance) >= 0).all()
        assert (curve.distance[1:] > 0).all() == (index == 0)


def rough(ladders: Ladders) -> Any:
    """A fitness with interactions whose best counts are not those of an order."""
    target = np.array([0.9 if index % 2 else 0.1 for index in range(len(ladders))])
    heights = np.array([max(1, ladders.height(index)) for index in range(len(ladders))])

    def fitness(counts: Any, samples: int) -> float:
        miss = np.array(counts) / heights - target
        noise = 0.0 if samples == 0 else 0.01 * (hash(tuple(counts)) % 7)
        return float(miss @ miss + 0.3 * abs(miss.sum()) + noise)

    return fitness


@pytest.mark.parametrize("metric", ["params", "macs"])
@pytest.mark.parametrize("name", MODELS)
def test_evolution_is_never_worse_and_never_above_the_budget(name: str, metric: str) -> None:
    ladders = ladders_of(ready(name), metric=metric)
    start = tuple(ladders.height(index) // 2 for index in range(len(ladders)))
    required = ladders.total(start) - 1
    fitness = rough(ladders)
    settings = EvolutionSettings(stages="1:4,0:1", step=0.5)
    found = evolve(ladders, start, required, fitness, settings)
    assert ladders.total(found.counts) >= required
    assert found.before == fitness(start, 0)
    assert found.after == fitness(found.counts, 0) < found.before
    assert found.candidates <= 1 + 3 * 4 * 8
    assert evolve(ladders, start, required, fitness, settings) == found
    assert evolve(ladders, start, required, fitness, settings, seed=1) != found


def test_a_start_that_is_best_stays() -> None:
    ladders = ladders_of(ready("decoder"))
    start = tuple(ladders.height(index) // 2 for index in range(len(ladders)))
    found = evolve(
        ladders,
        start,
        ladders.total(start),
        lambda counts, samples: float(counts != start),
        EvolutionSettings(),
    )
    assert (found.counts, found.before, found.after) == (start, 0, 0)


@pytest.mark.parametrize("name", MODELS)
def test_mutations_keep_the_budget_and_waste_nothing(name: str) -> None:
    ladders, rng = ladders_of(ready(name), every_kind(ready(name))), np.random.default_rng(0)
    counts = tuple(ladders.height(index) // 2 for index in range(len(ladders)))
    required = ladders.total(counts)
    changed = 0
    for _ in range(60):
        new = mutated(ladders, counts, required, 0.125, rng)
        assert ladders.total(new) >= required
        assert ladders.give_back(new, required, range(len(ladders))) == new
        changed += new != counts
    assert changed > 30
    all_made = tuple(ladders.height(index) for index in range(len(ladders)))
    assert ladders.total(mutated(ladders, all_made, ladders.total(all_made), 0.5, rng)) == (
        ladders.total(all_made)
    )
    assert mutated(ladders, (0,) * len(ladders), 0, 0.5, rng) == (0,) * len(ladders)


def test_shares_by_hand() -> None:
    # p 0.5, s_max 0.6: 4, 4 and 2 are kept at first; of 2.5 left the scores 2, 1, 1 give 1.25,
    # 0.625, 0.625.
    assert kept_shares([10, 10, 5], [2, 1, 1], 0.5).tolist() == [5.25, 4.625, 2.625]
    # p 0.05, s_max 0.15: 8.5, 8.5, 4.25 and 2.5 left; the first takes 1.5 of its share 2.5 (1.25
    # for 2/4 of it fits), the others what is left of theirs, until nothing is.
    kept = kept_shares([10, 10, 5], [98, 1, 1], 0.05)
    assert kept.tolist() == pytest.approx([10, 9.0, 4.75])
    assert kept_shares([4, 4], [0, 0], 0.5).tolist() == pytest.approx([2, 2])
    assert kept_shares([4, 4], [1, 0], 1.0).tolist() == [0, 0]
    assert kept_shares([4, 4], [1, 0], 0.0).tolist() == pytest.approx([4, 4])


@pytest.mark.parametrize("seed", range(5))
def test_shares_sum_up_and_never_leave_their_bounds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes, scores = rng.gamma(2, size=9), rng.gamma(0.2, size=9)
    before = sizes
    for part in np.linspace(0, 1, 21):
        kept = kept_shares(sizes, scores, part)
        assert kept.sum() == pytest.approx((1 - part) * sizes.sum(), abs=1e-9)
        assert (kept <= sizes + 1e-9).all()
        assert (kept >= (1 - min(1, part + 0.1)) * sizes - 1e-9).all()
        assert (kept <= before + 1e-9).all(), "the more leaves, the less each keeps"
        before = kept


@pytest.mark.parametrize("name", MODELS)
def test_shares_are_the_largest_under_the_budget(name: str) -> None:
    ladders, rng = ladders_of(ready(name)), np.random.default_rng(0)
    scores = list(rng.gamma(0.5, size=len(ladders)))
    sizes = [ladders.most(index) for index in range(len(ladders))]
    for share in (0.1, 0.4, 0.9, 1.0):
        required = share * sum(sizes)
        counts = share_counts(ladders, scores, required)
        assert ladders.total(counts) >= required
        parts = np.linspace(0, 1, 400)
        every = [
            ladders.total(
                [
                    ladders.nearest(i, size - keep)
                    for i, (size, keep) in enumerate(
                        zip(sizes, kept_shares(sizes, scores, part), strict=True)
                    )
                ]
            )
            for part in parts
        ]
        assert ladders.total(counts) <= min(each for each in every if each >= required)
