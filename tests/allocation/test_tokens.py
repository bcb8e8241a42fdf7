"""Schedules of merged tokens, and budgets that units and tokens share."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from prunepath.allocation.allocate import allocate
from prunepath.allocation.budget import Budget
from prunepath.allocation.latency import LatencyTable, TokenPace
from prunepath.allocation.merging import allocate_merging, blocks_with_keys
from prunepath.allocation.steps import StepOptions, build_steps
from prunepath.allocation.tokens import (
    TokenOptions,
    most_mergeable,
    schedule_from_scores,
    spread,
)
from prunepath.errors import BudgetError, RequestError
from prunepath.structure.cost import cost_of
from prunepath.structure.selection import Selection, everything
from prunepath.structure.tokens import TokenSchedule, TokenSite, mergeable
from tests.conformance.paths import random_path
from tests.surgery.test_merging import site_of
from tests.zoo.test_zoo import structure_of

SITE = TokenSite(stack="layers", num_layers=4, tokens=21, protected=1, key_width=8)
SMALL = TokenSite(stack="layers", num_layers=3, tokens=9, protected=1, key_width=4)
VIT = "vit-classifier"
SHARES = (0.1, 0.5, 0.9, 1.0)
KEPT = (0.95, 0.8, 0.65)
FINE = StepOptions(multiple=1, floor=1)


def all_schedules(site: TokenSite) -> list[TokenSchedule]:
    """Every schedule there is."""
    most = range(mergeable(site.tokens, site.protected) + 1)
    found = []
    for dropped in product(most, repeat=site.num_layers):
        left = site.tokens
        for count in dropped:
            if count > mergeable(left, site.protected):
                break
            left -= count
        else:
            found.append(TokenSchedule(site=site, dropped=dropped))
    return found


@pytest.mark.parametrize(
    ("dropped", "message"),
    [
        ((1, 2), "has 2 numbers and 'layers' has 4 blocks; give the tokens to merge in every one"),
        ((1, -1, 0, 0), r"merges -1 tokens in block 1, which gets 20 \(1 of them stay\)"),
        ((10, 6, 0, 0), r"merges 6 tokens in block 1, which gets 11 .* here 5"),
    ],
)
def test_schedules_that_cannot_be(dropped: tuple[int, ...], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        TokenSchedule(site=SITE, dropped=dropped)


def test_a_schedule_says_what_every_block_sees() -> None:
    schedule = TokenSchedule(site=SITE, dropped=(10, 5, 0, 1))
    assert schedule.entered == (21, 11, 6, 6)
    assert schedule.left == (11, 6, 6, 5)
    assert schedule.matching_macs == 8 * (10 * 10 + 5 * 5 + 2 * 3)
    assert TokenSchedule.from_record(schedule.to_record()) == schedule
    assert str(schedule) == (
        "21 tokens, 5 of them left at the end (76% merged; per block 10 5 0 1)"
    )


@pytest.mark.parametrize("decay", [0.3, 0.8, 1.0, 1.3, 4.0])
def test_a_larger_total_never_leaves_more_anywhere(decay: float) -> None:
    before = spread(SITE, 0, decay)
    assert before.dropped == (0, 0, 0, 0)
    for total in range(1, most_mergeable(SITE) + 1):
        schedule = spread(SITE, total, decay)
        assert all(now <= was for now, was in zip(schedule.left, before.left, strict=True))
        assert sum(schedule.dropped) <= total
        before = schedule


def test_decay_moves_tokens_over_depth() -> None:
    early, even, late = (spread(SITE, 8, decay).dropped for decay in (0.5, 1.0, 2.0))
    assert even == (2, 2, 2, 2)
    assert early == (4, 2, 1, 1)
    assert late == (1, 1, 2, 4)
    assert spread(SITE, 8, 1.0, [False, True, True, False]).dropped == (0, 4, 4, 0)
    assert spread(SITE, 8, 1.0, [False] * 4).dropped == (0, 0, 0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_scores_give_the_least_damage_where_work_is_tokens_seen(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.gamma(1.0, size=(3, 4))
    damage = np.concatenate([np.zeros((3, 1)), np.cumsum(np.sort(scores, 1), 1)], 1)

    def total(schedule: TokenSchedule) -> float:
        return sum(damage[block, count] for block, count in enumerate(schedule.dropped))

    options = all_schedules(SMALL)
    at_hull = 0
    for limit in range(min(sum(s.left) for s in options), 27, 2):
        found = schedule_from_scores(SMALL, scores, limit, lambda s: sum(s.left))
        fitting = [s for s in options if sum(s.left) <= limit]
        assert sum(found.left) <= limit
        assert total(found) >= min(map(total, fitting)) - 1e-12
        at_hull += total(found) <= min(map(total, fitting)) + 1e-9
        again = schedule_from_scores(SMALL, scores[:, ::-1], limit, lambda s: sum(s.left))
        assert again == found, "the order of scores within a block says nothing"
    assert at_hull >= 5  # between hull points it may pay a little more


def test_a_share_of_fewer_tokens_does_what_it_does_of_all() -> None:
    """All that is left to merge costs all of a block's damage, and half of it what half does."""
    scores = np.array([[0.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0], [9.0, 9.0, 9.0, 9.0]])
    whole = np.concatenate([np.zeros((3, 1)), np.cumsum(scores, 1)], 1)

    def total(schedule: TokenSchedule) -> float:
        pairs = zip(schedule.entered, schedule.dropped, strict=True)
        found = 0.0
        for block, (entered, count) in enumerate(pairs):
            most = (entered - SMALL.protected) // 2
            found += np.interp(count * 4 / most if most else 0, np.arange(5), whole[block])
        return float(found)

    options = all_schedules(SMALL)
    for limit in (12, 14, 16, 18, 20):
        fitting = [s for s in options if sum(s.left) <= limit]
        if not fitting:
            continue
        found = schedule_from_scores(SMALL, scores, limit, lambda s: sum(s.left), by_share=True)
        assert sum(found.left) <= limit
        assert total(found) >= min(map(total, fitting)) - 1e-12
    free = schedule_from_scores(SMALL, scores, 15, lambda s: sum(s.left), by_share=True)
    assert free.dropped == (4, 0, 0)  # what costs nothing, and no more than that
    # 5 tokens are left there: 2 may merge, and cost what 4 of 9 do.
    least = schedule_from_scores(SMALL, scores, 11, lambda s: sum(s.left), by_share=True)
    assert least.dropped == (4, 2, 0)
    assert total(least) == pytest.approx(10.0)


def test_scores_in_other_forms() -> None:
    flat = schedule_from_scores(SMALL, [2.0, 1.0, 3.0], 20, lambda s: sum(s.left))
    full = schedule_from_scores(SMALL, [[2.0] * 4, [1.0] * 4, [3.0] * 4], 20, lambda s: sum(s.left))
    assert flat == full
    assert sum(schedule_from_scores(SMALL, [1.0] * 3, 99, lambda s: sum(s.left)).dropped) == 0
    only = schedule_from_scores(
        SMALL, [1.0] * 3, 25, lambda s: sum(s.left), allowed=[False, True, True]
    )
    assert only.dropped[0] == 0
    for wrong in ([1.0, 2.0], [[1.0] * 2] * 3):
        with pytest.raises(RequestError, match=r"scores have the shape .* 3 blocks .* up to 4"):
            schedule_from_scores(SMALL, wrong, 20, lambda s: 0.0)
    for wrong in ([1.0, -2.0, 0.0], [1.0, float("nan"), 0.0]):
        with pytest.raises(RequestError, match="a negative number or one that is not finite"):
            schedule_from_scores(SMALL, wrong, 20, lambda s: 99.0)
    with pytest.raises(BudgetError, match="merging all tokens that can merge in 'layers' leaves"):
        schedule_from_scores(SMALL, [1.0] * 3, 1, lambda s: sum(s.left))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 1.5}, "token share 1.5 was asked for; it is the part of the saving"),
        ({"share": float("nan")}, "token share nan was asked for"),
        ({"decay": 0.0}, "token decay 0 was asked for; .* a number above 0"),
        ({"share": 0.5, "dropped": (1,)}, "a token share .* and a token schedule were given"),
    ],
)
def test_options_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        TokenOptions(**options)


def latency_of(selection: Selection, tokens: TokenSchedule | None = None) -> float:
    """A machine of one MAC per nanosecond."""
    return 1e-9 * cost_of(structure_of(VIT), selection, tokens=tokens).macs


@pytest.mark.parametrize(
    ("share", "metric"), [*((share, "macs") for share in SHARES), (0.5, "latency")]
)
def test_the_budget_is_met_and_nothing_can_be_put_back(share: float, metric: str) -> None:
    structure, site = structure_of(VIT), site_of(VIT)
    path, asked = random_path(structure), TokenOptions(share=share)
    options = StepOptions(multiple=4, floor=1, metric=metric)
    after = [everything(structure)]
    for step in build_steps(path, options):
        after.append(after[-1].without(step.removed))
    for kept in KEPT if share < 1 else KEPT[:2]:
        budget = Budget(metric=metric, fraction=kept)
        got = allocate_merging(path, budget, options, asked, site, latency_of=latency_of)
        assert got.cost == cost_of(structure, got.selection, tokens=got.tokens)
        assert got.reached <= got.limit
        unit = 1.0 if metric == "macs" else 1e-9
        assert got.reached == unit * got.cost.macs
        made = next(n for n, found in enumerate(after) if found.issubset(got.selection, structure))
        if made:  # the last step was needed
            longer = cost_of(structure, after[made - 1], tokens=got.tokens)
            assert unit * longer.macs > got.limit


def test_tokens_take_their_share() -> None:
    structure, site = structure_of(VIT), site_of(VIT)
    dense = cost_of(structure, everything(structure)).macs
    budget = Budget.parse("macs", "70%")
    for share in (0.2, 0.5, 0.8):
        asked = TokenOptions(share=share)
        got = allocate_merging(random_path(structure), budget, FINE, asked, site)
        units = dense - cost_of(structure, got.selection).macs
        one_token = 0.05 * dense  # whole tokens overshoot
        assert units == pytest.approx((1 - share) * 0.3 * dense, abs=one_token)


def test_a_share_of_nothing_is_no_merging() -> None:
    path, site = random_path(structure_of(VIT)), site_of(VIT)
    whole = allocate_merging(
        path, Budget.parse("macs", "100%"), FINE, TokenOptions(share=0.5), site
    )
    assert whole.tokens is None
    assert whole.cost == whole.dense
    zeros = TokenOptions(dropped=(0, 0))
    assert allocate_merging(path, Budget.parse("macs", "90%"), FINE, zeros, site).tokens is None
    assert not TokenOptions()


def test_a_schedule_of_the_user_is_counted_in() -> None:
    path, site = random_path(structure_of(VIT)), site_of(VIT)
    asked = TokenOptions(dropped=(4, 2))
    for text, metric in (("60%", "macs"), ("70%", "params")):
        got = allocate_merging(path, Budget.parse(metric, text), FINE, asked, site)
        assert got.tokens is not None
        assert got.tokens.dropped == (4, 2)
        assert got.reached <= got.limit
    plain = allocate(path, Budget.parse("macs", "60%"), FINE)
    got = allocate_merging(path, Budget.parse("macs", "60%"), FINE, asked, site)
    assert plain.selection.issubset(got.selection, path.structure)
    assert plain.cost.params < got.cost.params


def test_a_budget_that_merging_does_not_lower() -> None:
    path, asked = random_path(structure_of(VIT)), TokenOptions(share=0.5)
    for budget in (Budget.parse("params", "70%"), Budget.from_ratio(0.3)):
        with pytest.raises(RequestError, match="merging tokens saves no parameters or weights"):
            allocate_merging(path, budget, FINE, asked, site_of(VIT))


def test_a_share_out_of_reach() -> None:
    path, site = random_path(structure_of(VIT)), site_of(VIT)
    with pytest.raises(BudgetError, match="a token share of 1 leaves .* lower --token-share"):
        allocate_merging(path, Budget.parse("macs", "20%"), FINE, TokenOptions(share=1.0), site)
    with pytest.raises(BudgetError, match="99% of the saving to the units: .*raise --token-share"):
        allocate_merging(path, Budget.parse("macs", "5%"), FINE, TokenOptions(share=0.01), site)


def test_blocks_without_keys_merge_nothing() -> None:
    structure, site = structure_of(VIT), site_of(VIT)
    first = [group for group in structure.groups if group.layer == 0]
    gone = everything(structure).without(
        (group, np.arange(group.num_units)) for group in first if group.kind == "qk_coordinate"
    )
    assert blocks_with_keys(structure, everything(structure), site) == [True, True]
    assert blocks_with_keys(structure, gone, site) == [False, True]


def test_latency_scales_by_measured_curves() -> None:
    structure, site = structure_of(VIT), site_of(VIT)
    half = np.array([0.2, 0.3, 0.5, 0.75, 1.0])
    widths = {"attention": ("qk", "value"), "mlp": ("ffn",)}
    grids = {name: (factors, np.ones((5,) * len(factors))) for name, factors in widths.items()}
    table = LatencyTable(fixed_seconds=1.0, grids=grids, sequence_length=0, machine="")
    pace = TokenPace(curves={"attention": half, "mlp": half}, merge_seconds=0.25)
    dense = everything(structure)
    assert table.seconds(structure, dense) == 5.0
    none = TokenSchedule(site=site, dropped=(0, 0))
    assert table.seconds(structure, dense, none, pace) == 5.0
    some = TokenSchedule(site=site, dropped=(8, 0))
    share = float(np.interp(9 / 17, (0.125, 0.25, 0.5, 0.75, 1.0), half))
    assert table.seconds(structure, dense, some, pace) == pytest.approx(1 + 1 + 3 * share + 0.25)
