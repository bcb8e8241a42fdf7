"""A budget shared between units and tokens: which units stay and how many tokens merge.

The saving R that a budget asks for is split: units are removed until (1 - share) R is saved, then
tokens merge until the budget is met (the fewest spread over depth, or those of the least damage
where scores say what it is), and last the units are chosen again with those tokens merged, because
whole tokens overshoot and what they leave over keeps units. The result is at or under the budget,
and no step of the path can be taken back under its schedule.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from prunepath.allocation.allocate import Allocation, LatencyOf, allocate, dense_value
from prunepath.allocation.budget import Budget, describe, metric_value
from prunepath.allocation.steps import StepOptions
from prunepath.allocation.tokens import (
    TokenOptions,
    most_mergeable,
    schedule_from_scores,
    spread,
)
from prunepath.errors import BudgetError, RequestError
from prunepath.path import SolutionPath
from prunepath.structure.cost import cost_of
from prunepath.structure.selection import Selection, place_sizes
from prunepath.structure.tokens import TokenSchedule, TokenSite
from prunepath.structure.units import Structure

__all__ = ["allocate_merging", "blocks_with_keys"]

_SHARED = ("macs", "latency")


def allocate_merging(
    path: SolutionPath,
    budget: Budget,
    options: StepOptions,
    asked: TokenOptions,
    site: TokenSite,
    *,
    latency_of: LatencyOf | None = None,
    scores: ArrayLike | None = None,
) -> Allocation:
    """The largest model at or under a budget when its tokens merge, too.

    Args:
        path: a solution path.
        budget: what may be spent.
        options: see `allocate`.
        asked: how much of the saving tokens take, or how many merge where.
        site: where tokens merge.
        latency_of: seconds of a selection and a schedule, for latency budgets.
        scores: where `asked` wants a scored schedule, the damage of merging in every block (see
            `schedule_from_scores`).

    Returns:
        Selection and schedule with their exact costs.

    Raises:
        RequestError: a share of a budget that merging does not lower.
        BudgetError: out of reach with this share.
    """
    if asked.dropped:
        return _beside(
            TokenSchedule(site=site, dropped=asked.dropped), path, budget, options, latency_of
        )
    if budget.metric not in _SHARED:
        raise RequestError(
            f"a token share of {asked.share:g} was asked for with the budget {budget}, and merging "
            "tokens saves no parameters or weights; use --macs or --latency, or leave it out"
        )
    dense = dense_value(path, budget, options, latency_of)
    limit = budget.resolve(dense, path.structure.block_params)
    alone = Budget(metric=budget.metric, limit=dense - (1 - asked.share) * (dense - limit))
    try:
        units = allocate(path, alone, options, latency_of=latency_of)
    except BudgetError as error:
        raise BudgetError(
            f"the budget {budget} with a token share of {asked.share:g} leaves "
            f"{100 * (1 - asked.share):.0f}% of the saving to the units: {error}; or raise "
            "--token-share"
        ) from None
    if asked.scored:
        assert scores is not None, "a scored schedule needs scores"
        schedule = _least_damage(path.structure, units, limit, asked, site, latency_of, scores)
    else:
        schedule = _fewest(path.structure, units, limit, asked, site, latency_of)
    return _beside(schedule, path, budget, options, latency_of)


def blocks_with_keys(structure: Structure, selection: Selection, site: TokenSite) -> list[bool]:
    """Blocks whose attention has keys left, by which tokens can be compared."""
    found = [False] * site.num_layers
    for place in structure.places:
        if place.stack == site.stack and place.pair_layouts:
            groups = structure.groups_by_place[place.path]
            sizes = place_sizes(groups, place.factors, selection)
            found[place.layer] = all(sizes.get(name, 1) for name in place.pair_layouts[0].names)
    return found


def _beside(
    schedule: TokenSchedule,
    path: SolutionPath,
    budget: Budget,
    options: StepOptions,
    latency_of: LatencyOf | None,
) -> Allocation:
    """The most units that fit beside a schedule; one that merges nothing is none."""
    tokens = schedule if any(schedule.dropped) else None
    return allocate(path, budget, options, latency_of=latency_of, tokens=tokens)


def _fewest(
    structure: Structure,
    units: Allocation,
    limit: float,
    asked: TokenOptions,
    site: TokenSite,
    latency_of: LatencyOf | None,
) -> TokenSchedule:
    """The schedule with the fewest merged tokens that meets the limit beside these units."""
    allowed = blocks_with_keys(structure, units.selection, site)
    least = units.reached
    for total in range(most_mergeable(site) + 1):
        schedule = spread(site, total, asked.decay, allowed)
        value = _value(structure, units, schedule, latency_of)
        if value <= limit:
            return schedule
        least = min(least, value)
    hint = f", or raise --token-decay {asked.decay:g}" if asked.decay < 1 else ""
    raise _too_small(units, limit, asked, least, hint)


def _least_damage(
    structure: Structure,
    units: Allocation,
    limit: float,
    asked: TokenOptions,
    site: TokenSite,
    latency_of: LatencyOf | None,
    scores: ArrayLike,
) -> TokenSchedule:
    """The schedule of least measured damage that meets the limit beside these units."""
    values: list[float] = []

    def value(schedule: TokenSchedule) -> float:
        values.append(_value(structure, units, schedule, latency_of))
        return values[-1]

    allowed = blocks_with_keys(structure, units.selection, site)
    try:
        return schedule_from_scores(site, scores, limit, value, allowed, by_share=True)
    except BudgetError:
        raise _too_small(units, limit, asked, min(values), "") from None


def _value(
    structure: Structure, units: Allocation, schedule: TokenSchedule, latency_of: LatencyOf | None
) -> float:
    """What the budget counts of these units beside a schedule."""
    metric, length = units.budget.metric, units.options.sequence_length
    if latency_of is not None and metric == "latency":
        return latency_of(units.selection, schedule)
    return metric_value(
        cost_of(structure, units.selection, length, tokens=schedule), metric, length
    )


def _too_small(
    units: Allocation, limit: float, asked: TokenOptions, least: float, hint: str
) -> BudgetError:
    metric = units.budget.metric
    return BudgetError(
        f"a token share of {asked.share:g} leaves {describe(metric, units.reached)} to be brought "
        f"to {describe(metric, limit)} by merging tokens, and merging all that can merge leaves "
        f"{describe(metric, least, towards='up')}; lower --token-share{hint}"
    )
