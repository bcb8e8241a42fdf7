"""Path and budget in, selection out: the largest prefix of the removal steps that fits.

Costs only fall as steps are made, so the first prefix at or under the budget is found by
bisection over exactly counted costs; the budget is never exceeded by rounding or estimation. Other
rules choose otherwise from the same steps (`allocation.rules`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from prunepath.allocation.budget import Budget, describe, metric_value
from prunepath.allocation.knapsack import default_classes, fewest_damage, kept_damage
from prunepath.allocation.ladders import Counts, Ladders
from prunepath.allocation.legal import merge_illegal_steps
from prunepath.allocation.rules import MEASURING
from prunepath.allocation.steps import Step, StepOptions, build_steps, default_kinds
from prunepath.errors import BudgetError
from prunepath.path import SolutionPath
from prunepath.structure.axes import BoolArray
from prunepath.structure.cost import Cost, cost_of
from prunepath.structure.selection import Selection, everything
from prunepath.structure.tokens import TokenSchedule

__all__ = ["Allocation", "Choice", "Choose", "LatencyOf", "allocate", "dense_value"]

LatencyOf = Callable[..., float]
"""Seconds of a selection; where tokens merge, of a selection and their schedule."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a rule that measures chose.

    Args:
        counts: steps of every ladder.
        figures: what it measured, name -> value.
    """

    counts: Counts
    figures: Mapping[str, float]


Choose = Callable[[Ladders, Counts, float], Choice]
"""Ladders, what the order takes of each, and what must be saved -> what is chosen."""


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """A selection and what it costs.

    Args:
        selection: units kept.
        budget: what was asked.
        options: layout, kinds, rounding, floor and rule it was made with.
        limit: the budget in its base unit.
        reached: the same metric of the selection; never above `limit`.
        cost: all counted costs of the selection.
        dense: all counted costs of the dense model.
        ratio: fraction of the block parameters removed.
        damage_kept: rule -> sum of the damages of all units it keeps (`kept_damage`), in the
            path's unit; `"order"` always, for comparison, and the rule that was asked for.
        tokens: how many tokens every block merges; None: none.
        measured: what a rule that runs the model measured, name -> value; empty for others.
    """

    selection: Selection
    budget: Budget
    options: StepOptions
    limit: float
    reached: float
    cost: Cost
    dense: Cost
    ratio: float
    damage_kept: Mapping[str, float]
    tokens: TokenSchedule | None = None
    measured: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        metric = self.budget.metric
        reached = (
            f"{self.budget}: {describe(metric, self.reached)} of at most "
            f"{describe(metric, self.limit)} ({100 * self.ratio:.1f}% of block parameters removed)"
        )
        return reached if self.tokens is None else f"{reached}; {self.tokens}"


def allocate(
    path: SolutionPath,
    budget: Budget,
    options: StepOptions | None = None,
    *,
    latency_of: LatencyOf | None = None,
    tokens: TokenSchedule | None = None,
    biases: int = 0,
    choose: Choose | None = None,
) -> Allocation:
    """The largest model of a path at or under a budget.

    Args:
        path: a solution path.
        budget: what may be spent.
        options: layout, kinds, rounding, floor and rule; the metric is taken from the budget.
        latency_of: seconds of a selection, needed for latency budgets only; it must not
            increase when units are removed.
        tokens: how many tokens every block of the result merges; the budget counts that in.
        biases: numbers that a repair may add; the budget keeps room for them.
        choose: runs the model, needed for the rules that do.

    Returns:
        The selection with its exact costs.

    Raises:
        BudgetError: above the dense model, or below the smallest model the path can give.
        RequestError: kinds that the layout or the rule cannot weigh.

    Example:
        >>> path = SolutionPath.from_pretrained("smollm2-path")  # doctest: +SKIP
        >>> print(allocate(path, Budget.parse("params", "70%")))  # doctest: +SKIP
        params 70%: 94.14M of at most 94.16M (37.9% of block parameters removed)
    """
    options = replace(options or StepOptions(), metric=budget.metric)
    structure, length = path.structure, options.sequence_length
    if options.rule == "knapsack" and not options.kinds:
        options = replace(options, kinds=default_classes(structure))

    def value(selection: Selection) -> float:
        if budget.metric == "latency":
            assert latency_of is not None, "a latency budget needs a latency table"
            return latency_of(selection) if tokens is None else latency_of(selection, tokens)
        cost = cost_of(structure, selection, length, tokens=tokens)
        room = biases * structure.weight_bytes // structure.num_params
        cost = replace(cost, params=cost.params + biases, weight_bytes=cost.weight_bytes + room)
        return metric_value(cost, budget.metric, length)

    steps = build_steps(path, options)
    if options.layout == "uniform":
        steps = merge_illegal_steps(structure, steps)
    dense_cost = cost_of(structure, everything(structure), length)
    limit = budget.resolve(dense_value(path, budget, options, latency_of), structure.block_params)
    selection = _largest_prefix(path, steps, limit, value, budget)
    kinds = options.kinds or default_kinds(structure, options.layout)
    damage_kept = {"order": kept_damage(path, selection, kinds)}
    if options.rule == "knapsack":
        selection = fewest_damage(path, steps, options, limit, value)
        damage_kept["knapsack"] = kept_damage(path, selection, kinds)
    measured: Mapping[str, float] = {}
    if options.rule in MEASURING:
        required = value(everything(structure)) - limit
        if required > 0:
            assert choose is not None, "a rule that measures needs who does"
            ladders = Ladders(structure, steps, budget.metric, length)
            choice = choose(ladders, ladders.counts(selection), required)
            selection, measured = ladders.selection(choice.counts), choice.figures
            assert value(selection) <= limit, "what ladders save is exact"
        damage_kept[options.rule] = kept_damage(path, selection, kinds)
    cost = cost_of(structure, selection, length, tokens=tokens)
    return Allocation(
        selection=selection,
        budget=budget,
        options=options,
        limit=limit,
        reached=value(selection),
        cost=cost,
        dense=dense_cost,
        ratio=(dense_cost.params - cost.params) / structure.block_params,
        damage_kept=damage_kept,
        tokens=tokens,
        measured=measured,
    )


def dense_value(
    path: SolutionPath, budget: Budget, options: StepOptions, latency_of: LatencyOf | None
) -> float:
    """What the dense model has of a budget's metric; no tokens merge in it."""
    whole, length = everything(path.structure), options.sequence_length
    if budget.metric == "latency":
        assert latency_of is not None, "a latency budget needs a latency table"
        return latency_of(whole)
    return metric_value(cost_of(path.structure, whole, length), budget.metric, length)


def _largest_prefix(
    path: SolutionPath,
    steps: list[Step],
    limit: float,
    value: Callable[[Selection], float],
    budget: Budget,
) -> Selection:
    """The shortest run of removals that fits, by bisection."""
    low, high = 0, len(steps)
    if value(_after(path, steps, high)) > limit:
        smallest = value(_after(path, steps, high))
        raise BudgetError(
            f"the budget {budget} allows {describe(budget.metric, limit)}, and the smallest model "
            f"this path can give has {describe(budget.metric, smallest, towards='up')}; ask for at "
            f"least that, or {_way_out(steps)}"
        )
    while low < high:
        middle = (low + high) // 2
        if value(_after(path, steps, middle)) <= limit:
            high = middle
        else:
            low = middle + 1
    return _after(path, steps, low)


def _way_out(steps: list[Step]) -> str:
    """What makes smaller models possible."""
    groups = {group.name: group for step in steps for group, _ in step.removed}
    held = [group for group in groups.values() if group.least]
    if not held:
        return "lower --floor"
    reason = f"a router needs {held[0].least} units of the kind '{held[0].kind}' in every layer"
    if len(held) == len(groups):
        return f"cut other kinds, too, with --kinds ({reason})"
    return f"lower --floor ({reason})"


def _after(path: SolutionPath, steps: list[Step], count: int) -> Selection:
    keep: dict[str, BoolArray] = {
        group.name: np.ones(group.num_units, dtype=np.bool_) for group in path.structure.groups
    }
    for step in steps[:count]:
        for group, units in step.removed:
            keep[group.name][units] = False
    return Selection(keep)
