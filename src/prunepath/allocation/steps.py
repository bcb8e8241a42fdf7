"""From a path to removal steps: the atomic moves of an allocation, in the order they are made.

Constraints live here and nowhere else. Lanes that must end equally wide, widths that must be
multiples of 8, layers that must all look alike: each of them only says which units go *together*.
What is left is one sequence of steps, and every allocation by the rule `order` is a prefix of it;
that is why a smaller budget then keeps a subset of what a larger one keeps.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prunepath.allocation.budget import metric_value
from prunepath.allocation.rules import RULES, require_rule, rule_settings
from prunepath.errors import RequestError
from prunepath.path import SolutionPath
from prunepath.structure.axes import IntArray
from prunepath.structure.cost import unit_cost
from prunepath.structure.units import Structure, UnitGroup

__all__ = [
    "LAYOUTS",
    "RULES",
    "Step",
    "StepOptions",
    "build_steps",
    "default_kinds",
    "positions_per_unit",
]

LAYOUTS = ("per-layer", "uniform")


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """How a path is turned into steps.

    Args:
        layout: `"per-layer"` (best quality) or `"uniform"` (every layer the same size).
        kinds: unit kinds that may be cut; empty takes the layout's default.
        multiple: widths end as multiples of this many channels or coordinates; 1 turns it off.
        floor: smallest width every group keeps, in channels or coordinates; heads and KV groups
            keep at least one. Sub-layers go whole. Or a part of its own width, `"10%"`: what a
            global order needs when it would empty some groups (the minimum of arXiv 2209.14624,
            there of all weights).
        metric: what the steps are weighed by when groups are merged.
        sequence_length: tokens the metric is stated for.
        rule: `"order"` makes steps by damage per cost until the budget is met; `"knapsack"` makes
            those of least damage in sum (`allocation.knapsack`); the others measure
            (`allocation.rules`).
        rule_set: settings of the rule that differ from its usual ones.
    """

    layout: str = "per-layer"
    kinds: tuple[str, ...] = ()
    multiple: int = 8
    floor: int | str = 8
    metric: str = "params"
    sequence_length: int = 512
    rule: str = "order"
    rule_set: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise RequestError(
                f"unknown layout '{self.layout}'; use 'uniform' (every layer the same size, loads "
                "everywhere) or 'per-layer' (best quality)"
            )
        if self.multiple < 1:
            raise RequestError(f"multiple is {self.multiple}; widths are multiples of 1 or more")
        if isinstance(self.floor, str) and self.floor.strip().lstrip("-").isdigit():
            object.__setattr__(self, "floor", int(self.floor))  # as the command line says it
        if isinstance(self.floor, str):
            _share(self.floor)
        elif self.floor < 0:
            raise RequestError(f"floor is {self.floor}; a width cannot be below 0")
        require_rule(self.rule, self.layout, self.metric)
        rule_settings(self.rule, self.rule_set)

    def units_left(self, lane_width: int, positions: int) -> int:
        """Units that always stay of every lane of a group.

        Args:
            lane_width: units of a lane in the dense model.
            positions: channels or coordinates that one unit owns.
        """
        if isinstance(self.floor, str):
            return math.ceil(round(_share(self.floor) * lane_width, 9))
        return -(-self.floor // positions)


def _share(text: str) -> float:
    """`"10%"` as 0.1."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*%\s*", text)
    if match is None or not 0 <= float(match[1]) <= 100:
        raise RequestError(
            f"floor is '{text}'; give a width such as 8, or a part of each group such as 10%"
        )
    return float(match[1]) / 100


@dataclass(frozen=True)
class Step:
    """Units that leave together.

    Args:
        removed: (group, unit indices) pairs.
        density: damage per unit of cost, or mean damage where the path is ordered by damage;
            steps are made in its ascending order.
    """

    removed: tuple[tuple[UnitGroup, IntArray], ...]
    density: float


def default_kinds(structure: Structure, layout: str) -> tuple[str, ...]:
    """Kinds a layout cuts unless told otherwise.

    `per-layer` cuts the finest units behind every gate site (channels and coordinates); `uniform`
    cuts what the family's own code can run at any size (channels and whole heads), so that its
    result loads everywhere, and the finest units where there is no such thing. Units that are whole
    modules (experts) and whole sub-layers leave only where `kinds` names them.
    """
    factors = {place.path: set(place.native) for place in structure.places}
    native = {
        group.kind
        for group in structure.groups
        if not (group.is_sublayer or group.members)
        and set(group.unit.names) <= factors[group.place]
    }
    finest = structure.finest_groups
    fine = {group.kind for group in finest}
    if layout == "per-layer":
        return tuple(kind for kind in structure.kinds if kind in fine)
    served = {group.place for group in structure.groups if group.kind in native}
    rest = {group.kind for group in finest if group.place not in served}
    return tuple(kind for kind in structure.kinds if kind in native | rest)


def build_steps(path: SolutionPath, options: StepOptions) -> list[Step]:
    """All steps of a path, first removed first.

    Raises:
        RequestError: an unknown kind, or layers that the `uniform` layout would make different.
    """
    kinds = options.kinds or default_kinds(path.structure, options.layout)
    for kind in kinds:
        if kind not in path.structure.kinds:
            raise RequestError(
                f"unknown unit kind '{kind}'; this path has {', '.join(path.structure.kinds)}"
            )
    sequences: list[list[Step]] = []
    for kind in kinds:
        groups = path.structure.of_kind(kind)
        if options.layout == "uniform":
            if any(group.is_sublayer for group in groups):
                raise RequestError(
                    f"the layout 'uniform' keeps all layers the same size, and a layer without its "
                    f"{kind} is unlike the others; leave {kind} out of --kinds, or use "
                    "--layout per-layer"
                )
            for series in dict.fromkeys(group.series for group in groups):
                same = [group for group in groups if group.series == series]
                sequences.append(
                    _across_layers(kind, [_group_steps(path, g, options) for g in same])
                )
        else:
            sequences.extend(_group_steps(path, group, options) for group in groups)
    return _merge(_joined(path, sequences))


def _joined(path: SolutionPath, sequences: list[list[Step]]) -> list[list[Step]]:
    """Groups that leave together as one sequence of one step, in the place of their first."""
    if not path.together:
        return sequences
    bound = {name: names for names in path.together for name in names}
    found: dict[tuple[str, ...], list[list[Step]]] = {}
    for number, steps in enumerate(sequences):
        name = steps[0].removed[0][0].name if steps else ""
        found.setdefault(bound.get(name, (str(number),)), []).append(steps)
    return [
        _across_layers("sub-layer", parts) if len(parts) > 1 else parts[0]
        for parts in found.values()
    ]


def positions_per_unit(structure: Structure, group: UnitGroup) -> int:
    """Positions of the narrowest tensor axis that one unit owns: 1 for a channel, 2 for a rotary
    pair, a whole head width for a head, all of them for a sub-layer."""
    place = structure.places_by_path[group.place]
    return min(
        axis.part(number).size // group.num_units
        for tensor in place.tensors
        for axis in tensor.axes
        for number in range(axis.num_parts)
        if axis.part(number).covers(group.unit) and axis.part(number).size and not tensor.whole
    )


def _rounding(structure: Structure, group: UnitGroup, options: StepOptions) -> tuple[int, int]:
    """Units of a lane that leave together, and how many stay. Of units that are whole modules, as
    of heads, each leaves alone; no fewer stay than the model's code runs with."""
    if group.members:
        return 1, max(1, group.least)
    positions = positions_per_unit(structure, group)
    floor = options.units_left(group.lane_width, positions)
    return max(1, options.multiple // positions), 0 if group.is_sublayer else floor  # goes whole


def _group_steps(path: SolutionPath, group: UnitGroup, options: StepOptions) -> list[Step]:
    """One group's steps: equal lanes, widths rounded to the multiple, the floor left standing."""
    lanes: list[list[int]] = [[] for _ in range(group.num_lanes)]
    for unit in path.order_in(group):
        lanes[int(unit) // group.lane_width].append(int(unit))
    bundles = np.array(lanes, dtype=np.int64).T  # (lane_width, num_lanes): removed row by row
    size, floor = _rounding(path.structure, group, options)
    width = group.lane_width
    cost = 1.0
    if path.order != "damage":
        cost = metric_value(
            unit_cost(path.structure, group, options.sequence_length),
            options.metric if options.metric != "latency" else "macs",
            options.sequence_length,
        )
    damage = path.damage[group.name]
    steps = []
    start, density = 0, -np.inf
    first = width % size or size
    while width - start - (first if start == 0 else size) >= floor:
        stop = start + (first if start == 0 else size)
        units = bundles[start:stop].reshape(-1)
        # A group is emptied in its own order, so a step never sorts before an earlier one.
        total = float(damage[units].sum(dtype=np.float64))
        # What saves nothing leaves last.
        density = max(density, total / (cost * len(units)) if cost > 0 else np.inf)
        steps.append(Step(((group, units),), density))
        start = stop
    return steps


def _across_layers(kind: str, per_layer: Sequence[list[Step]]) -> list[Step]:
    """The r-th step of every layer as one step."""
    counts = {len(steps) for steps in per_layer}
    if len(counts) > 1:
        raise RequestError(
            f"the layout 'uniform' needs every layer to have the same {kind} width, and they "
            f"differ in this model ({sorted(counts)} steps); use --layout per-layer"
        )
    merged = []
    density = -np.inf
    for row in zip(*per_layer, strict=True):
        density = max(density, float(np.mean([step.density for step in row])))
        merged.append(Step(tuple(pair for step in row for pair in step.removed), density))
    return merged


def _merge(sequences: Iterable[list[Step]]) -> list[Step]:
    """All sequences as one, by density; ties go to the earlier sequence, so the result is total."""
    flat = [
        (step.density, which, place, step)
        for which, steps in enumerate(sequences)
        for place, step in enumerate(steps)
    ]
    return [step for *_, step in sorted(flat, key=lambda item: item[:3])]
