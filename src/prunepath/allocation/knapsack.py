"""The best selection of two kinds of units under a budget, where damages add up.

Merging all units by damage per cost is a greedy answer to a knapsack problem: it stops at the
first step that no longer has to be made, though a cheaper exchange may be left. With two kinds,
each of one cost a step, the exact answer needs no integer programming: however many steps of the
first kind are made, the fewest of the second that reach the budget are known, and of either kind
the steps of least damage go. Sorting dominates, so N steps take O(N log N).

Sums of damages say nothing of what removals do to each other, so the exact optimum of the sum need
not be the better model. And it is not nested: a smaller budget may take back a unit of one kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from prunepath.allocation.budget import metric_value
from prunepath.allocation.steps import Step, StepOptions
from prunepath.errors import BudgetError, RequestError
from prunepath.path import SolutionPath
from prunepath.structure.cost import place_cost, unit_cost
from prunepath.structure.selection import Selection, everything
from prunepath.structure.units import Structure, UnitGroup

__all__ = ["default_classes", "fewest_damage", "kept_damage"]


def default_classes(structure: Structure) -> tuple[str, ...]:
    """Kinds the rule chooses from unless told otherwise: whole heads and FFN channels.

    Heads as the rest of the structure knows them: the coarsest units in front of every consumer,
    which is a KV group where queries share keys.
    """
    coarsest: dict[tuple[str, str, int], UnitGroup] = {}
    for group in structure.groups:
        if group.is_sublayer:  # goes only where `kinds` names it
            continue
        known = coarsest.get(group.gate.key)
        if group.consumer and (known is None or group.num_units < known.num_units):
            coarsest[group.gate.key] = group
    return tuple(dict.fromkeys(group.kind for group in coarsest.values()))


def kept_damage(path: SolutionPath, selection: Selection, kinds: Sequence[str]) -> float:
    """What a rule makes as large as it can: the sum of the damages of all units that stay.

    Args:
        path: the path whose damages are summed, in its own unit.
        selection: units kept.
        kinds: the kinds that may be cut; units of others overlap with theirs and are not counted.
    """
    return sum(
        float(path.damage[group.name][selection.of(group)].sum(dtype=np.float64))
        for kind in kinds
        for group in path.structure.of_kind(kind)
    )


def fewest_damage(
    path: SolutionPath,
    steps: Sequence[Step],
    options: StepOptions,
    limit: float,
    value: Callable[[Selection], float],
) -> Selection:
    """The selection under a limit whose removed steps sum up to the least damage.

    As in the mask search of Kwon et al. (2022, algorithm 1), with two differences: a number of
    steps that cannot reach the budget is no candidate (there, heads alone may exceed it), and the
    second kind's number is looked up in sums instead of searched for.

    Args:
        path: a solution path.
        steps: all steps of one or two kinds, those of each kind by ascending damage.
        options: what they were built with.
        limit: largest value allowed.
        value: the exactly counted metric of a selection; the result never exceeds the limit.

    Returns:
        Units kept. Optimal where the damages of a group do not fall along its order and its units'
        costs add up; the last unit of an emptied attention may save less, and is then counted.

    Raises:
        RequestError: more than two kinds, or steps of one kind that cost differently.
        BudgetError: no number of steps reaches the limit.

    Example:
        >>> steps = build_steps(path, options)  # doctest: +SKIP
        >>> selection = fewest_damage(path, steps, options, 1.2e9, macs_of)  # doctest: +SKIP
    """
    kinds = dict.fromkeys(step.removed[0][0].kind for step in steps)
    if len(kinds) > 2:
        raise RequestError(
            f"the rule 'knapsack' weighs two kinds of units against each other, and "
            f"{len(kinds)} were asked for ({', '.join(kinds)}); name one or two with --kinds"
        )
    whole = everything(path.structure)
    if not steps:
        return whole
    _require_additive(path.structure, tuple(kinds), options)
    classes = [[step for step in steps if step.removed[0][0].kind == kind] for kind in kinds]
    costs = [_one_cost(path.structure, same, options) for same in classes]
    damages = [_damage_sums(path, same) for same in classes]
    if len(classes) == 1:
        classes.append([])
        costs.append(1)
        damages.append(np.zeros(1))
    dense = value(whole)
    missing = math.ceil(dense - limit)
    while True:
        numbers = _cheapest(missing, costs, damages)
        if numbers is None:
            raise BudgetError(
                f"no choice of {' and '.join(kinds)} reaches the budget; ask for a larger one, "
                "lower --floor, or use --rule order"
            )
        made = [step for same, count in zip(classes, numbers, strict=True) for step in same[:count]]
        selection = whole.without(pair for step in made for pair in step.removed)
        excess = value(selection) - limit
        if excess <= 0:
            return selection
        # An emptied sub-layer keeps a shell; what it still costs has to be saved elsewhere.
        missing += math.ceil(excess)


def _cheapest(
    missing: int, costs: Sequence[int], damages: Sequence[NDArray[np.float64]]
) -> tuple[int, int] | None:
    """How many steps of either kind save `missing` at the least damage; None: no numbers do."""
    first = np.arange(len(damages[0]))
    second = np.maximum(0, -((first * costs[0] - missing) // costs[1]))
    enough = second < len(damages[1])
    if not enough.any():
        return None
    first, second = first[enough], second[enough]
    best = int(np.argmin(damages[0][first] + damages[1][second]))
    return int(first[best]), int(second[best])


def _damage_sums(path: SolutionPath, steps: Sequence[Step]) -> NDArray[np.float64]:
    """Damage of the first 0, 1, ... steps."""
    each = [
        sum(
            float(path.damage[group.name][units].sum(dtype=np.float64))
            for group, units in step.removed
        )
        for step in steps
    ]
    return np.concatenate([[0.0], np.cumsum(each)])


def _one_cost(structure: Structure, steps: Sequence[Step], options: StepOptions) -> int:
    """What every step of a kind saves, in the metric."""
    groups = {group.name: group for step in steps for group, _ in step.removed}
    units = {name: _unit_value(structure, group, options) for name, group in groups.items()}
    found: dict[int, str] = {}
    for step in steps:
        cost = sum(units[group.name] * len(members) for group, members in step.removed)
        found.setdefault(cost, step.removed[0][0].name)
    if len(found) > 1:
        (one, here), (other, there), *_ = found.items()
        kind = steps[0].removed[0][0].kind
        raise RequestError(
            f"the rule 'knapsack' needs steps of one kind to cost the same, and {kind} steps cost "
            f"{one} {options.metric} in '{here}' and {other} in '{there}'; choose --kinds that are "
            "alike in all layers and a --multiple that divides their widths, or use --rule order"
        )
    return next(iter(found))


def _unit_value(structure: Structure, group: UnitGroup, options: StepOptions) -> int:
    cost = unit_cost(structure, group, options.sequence_length)
    return int(metric_value(cost, options.metric, options.sequence_length))


def _require_additive(structure: Structure, kinds: Sequence[str], options: StepOptions) -> None:
    """Refuse units that are cut from the same weights."""
    length = options.sequence_length
    for place in structure.places:
        groups = [g for g in structure.groups_by_place[place.path] if g.kind in kinds]
        if len(groups) < 2:
            continue
        whole = place_cost(structure, place, Selection({}), length)
        less = Selection({}).without((group, np.array([0])) for group in groups)
        saved = metric_value(
            whole - place_cost(structure, place, less, length), options.metric, length
        )
        if saved != sum(_unit_value(structure, group, options) for group in groups):
            both = " and ".join(group.kind for group in groups)
            raise RequestError(
                f"the rule 'knapsack' needs costs that add up, and {both} are cut "
                f"from the same weights of '{place.path}'; name kinds that do not overlap with "
                "--kinds, or use --rule order"
            )
