"""Plain data about a model: unit groups, the tensors they cut, and what is left alone.

Nothing here holds a tensor or writes a weight, so a `Structure` travels inside a solution path
and `extract` can refuse a budget before it loads a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

from prunepath.structure.axes import Axis, AxisLayout, IntArray

__all__ = [
    "GateSite",
    "LeftAlone",
    "PlaceInfo",
    "StackInfo",
    "Structure",
    "TensorInfo",
    "UnitGroup",
]


@dataclass(frozen=True, kw_only=True)
class GateSite:
    """Where one scalar per unit multiplies an activation, or the odds of being picked.

    Args:
        module: full module path.
        side: `"input"` or `"output"` of that module; `"logits"`: what a router compares, where
            a factor on the odds of a unit is added as its logarithm.
        axis: what the last axis of that activation is made of.
        part: the part of the axis that is gated.
    """

    module: str
    side: str
    axis: Axis
    part: int = 0

    @property
    def key(self) -> tuple[str, str, int]:
        """What groups that gate the same positions share."""
        return self.module, self.side, self.part

    @property
    def layout(self) -> AxisLayout:
        """The product that the gated positions are made of."""
        return self.axis.part(self.part)

    @property
    def positions(self) -> IntArray | None:
        """Which positions of the activation are gated; None: all of them, in their own order."""
        return None if self.axis.num_parts == 1 else self.axis.positions(self.part)


@dataclass(frozen=True, kw_only=True)
class UnitGroup:
    """All units of one kind in one place.

    Args:
        name: `"layers.3.ffn_channel"`; unique in a model.
        kind: a word of the glossary.
        layer: index of the layer in its stack.
        place: full module path of the sub-layer, unique in a model.
        series: groups of the same series are equally wide in the `uniform` layout.
        unit: layout whose positions are the units; of a whole sub-layer the empty product, which
            has one position and covers every axis.
        tied: factor of `unit` whose values keep equally many units (`""`: none).
        gate: where the gate sits.
        consumer: full path of the linear map the refit repairs (`""`: none).
        members: full paths of modules that leave whole, one with each unit; empty: none do.
        least: fewest units the model's own code runs with; 0: any number.
    """

    name: str
    kind: str
    layer: int
    place: str
    series: str
    unit: AxisLayout
    tied: str
    gate: GateSite
    consumer: str
    members: tuple[str, ...] = ()
    least: int = 0

    @property
    def num_units(self) -> int:
        """Number of units in the group."""
        return self.unit.size

    @property
    def is_sublayer(self) -> bool:
        """Whether its one unit is the whole sub-layer."""
        return not self.unit.names

    @property
    def num_lanes(self) -> int:
        """How many lanes must end equally wide; 1 where nothing is tied."""
        return self.unit.size_of(self.tied) if self.tied else 1

    @property
    def lane_width(self) -> int:
        """Units per lane."""
        return self.num_units // self.num_lanes


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """One parameter of a place: its axes and how often its elements are multiplied.

    Args:
        name: full parameter name.
        axes: one per tensor dimension; a fixed one is never cut.
        rows: how many rows pass through per sequence of T tokens, as (a, b): a + b T; zeros for
            what is added and not multiplied (biases).
        itemsize: bytes per element.
        whole: follows whole heads only and keeps at least one of them: a table the model's own
            code reads, whatever coordinates are gone.
    """

    name: str
    axes: tuple[Axis, ...]
    rows: tuple[float, float]
    itemsize: int
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class PlaceInfo:
    """One sub-layer of one layer: its tensors and its costs beyond them.

    Args:
        path: full module path; two places of one module add `#name`.
        layer: index of the layer in its stack.
        layer_path: full module path of the layer.
        stack: path of the stack.
        tensors: parameters that are cut.
        pair_layouts: positions multiplied once per pair of tokens.
        pairs: pairs per sequence of T tokens, as (a, b, c): a + b T + c T^2.
        cache_layouts: positions kept per token in the KV cache.
        cache_itemsize: bytes of one of them.
        native: factors the model's own code runs at any size.
        runtime: module of ours for other sizes; without one, activations are filled with zeros.
        attributes: attribute of the module -> layout whose size it states.
        run: factor -> size the model's own code runs at, where coordinates were cut before.
        routed: a router decides which tokens it sees: `rows` is a mean over all it chooses from.
    """

    path: str
    layer: int
    layer_path: str
    stack: str
    tensors: tuple[TensorInfo, ...]
    pair_layouts: tuple[AxisLayout, ...] = ()
    pairs: tuple[float, float, float] = (0.0, 0.0, 1.0)
    cache_layouts: tuple[AxisLayout, ...] = ()
    cache_itemsize: int = 0
    native: tuple[str, ...] = ()
    runtime: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    run: Mapping[str, int] = field(default_factory=dict)
    routed: bool = False

    @property
    def module(self) -> str:
        """Full path of the module itself."""
        return self.path.partition("#")[0]

    @property
    def dense_macs(self) -> tuple[float, float, float]:
        """MACs before any cut per sequence of T tokens, as (a, b, c): a + b T + c T^2."""
        pairs = sum(layout.size for layout in self.pair_layouts)
        a, b, c = (pairs * factor for factor in self.pairs)
        for tensor in self.tensors:
            size = prod(axis.size for axis in tensor.axes)
            a, b = a + size * tensor.rows[0], b + size * tensor.rows[1]
        return a, b, c

    @property
    def factors(self) -> dict[str, int]:
        """Every factor of the place with its size."""
        found: dict[str, int] = {}
        for tensor in sorted(self.tensors, key=lambda tensor: tensor.whole):
            for axis in tensor.axes:
                for name, size in axis.factors.items():
                    found.setdefault(name, size)  # tables that stay whole may be wider
        return found


@dataclass(frozen=True, kw_only=True)
class StackInfo:
    """A list of layers, and the config that states their sizes.

    Args:
        path: path of the module list; with several lists of one table, the first.
        config: attribute path of its config inside the model's config; empty: that itself.
        num_layers: its layers, with units or without.
        config_sizes: config field -> factors whose product it states.
        legal_sizes: config field -> values its config class accepts, where it is choosy.
        additive: see `families.table.Stack`.
    """

    path: str
    config: str
    num_layers: int
    config_sizes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    legal_sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    additive: bool = True

    def config_values(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Values of the config fields that state these factor sizes."""
        return {
            field: prod(sizes[factor] for factor in factors)
            for field, factors in self.config_sizes.items()
            if all(factor in sizes for factor in factors)
        }

    def accepts(self, sizes: Mapping[str, int]) -> bool:
        """Whether the config class takes the values of these factor sizes."""
        values = self.config_values(sizes)
        return all(
            values[field] in legal for field, legal in self.legal_sizes.items() if field in values
        )


@dataclass(frozen=True, kw_only=True)
class LeftAlone:
    """A module that is not cut, how large it is, and why."""

    module: str
    params: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Structure:
    """Everything `search` and `allocate` need to know about a model.

    Args:
        family: names of the family tables, joined by commas.
        model_type: `config.model_type` of the model.
        groups: unit groups, layer by layer.
        places: sub-layers with units.
        stacks: the lists of layers.
        left_alone: what is not cut, and why.
        num_params: parameters of the whole dense model, tied weights counted once.
        block_params: parameters of the layers (everything a ratio is counted over).
        weight_bytes: bytes of all parameters.
        tables: family tables that did not ship with this library, JSON-ready: loading needs them.
        fixed_macs: MACs outside the places per sequence of T tokens: (a, b, c): a + b T + c T^2.
    """

    family: str
    model_type: str
    groups: tuple[UnitGroup, ...]
    places: tuple[PlaceInfo, ...]
    stacks: tuple[StackInfo, ...]
    left_alone: tuple[LeftAlone, ...]
    num_params: int
    block_params: int
    weight_bytes: int
    fixed_macs: tuple[float, float, float]
    tables: tuple[Mapping[str, Any], ...] = ()

    @property
    def num_layers(self) -> int:
        """Layers of all stacks."""
        return sum(stack.num_layers for stack in self.stacks)

    @property
    def additive(self) -> bool:
        """Whether all consumers add to the residual stream as they are."""
        return all(stack.additive for stack in self.stacks)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Unit kinds present, in table order."""
        return tuple(dict.fromkeys(group.kind for group in self.groups))

    @cached_property
    def finest_groups(self) -> tuple[UnitGroup, ...]:
        """The group with the most units at every gate site.

        Coarser units of the same site (a head beside its own coordinates) would multiply the same
        activation twice, and take the same weights out twice. Units that are whole modules are
        coarser than the units inside these.
        """
        best: dict[tuple[str, str, int], UnitGroup] = {}
        inner = {group.place for group in self.groups}
        for group in self.groups:
            if not inner.isdisjoint(group.members):
                continue
            site = group.gate.key
            if site not in best or group.num_units > best[site].num_units:
                best[site] = group
        return tuple(group for group in self.groups if best.get(group.gate.key) is group)

    @cached_property
    def groups_by_name(self) -> dict[str, UnitGroup]:
        """Groups by name."""
        return {group.name: group for group in self.groups}

    @cached_property
    def groups_by_place(self) -> dict[str, tuple[UnitGroup, ...]]:
        """Groups of each place, by its path."""
        found: dict[str, tuple[UnitGroup, ...]] = {place.path: () for place in self.places}
        for group in self.groups:
            found[group.place] += (group,)
        return found

    @cached_property
    def places_by_path(self) -> dict[str, PlaceInfo]:
        """Places by their path."""
        return {place.path: place for place in self.places}

    @cached_property
    def unit_of_member(self) -> dict[str, tuple[UnitGroup, int]]:
        """Modules that leave whole -> the group and the unit they leave with."""
        return {
            module: (group, unit)
            for group in self.groups
            for unit, module in enumerate(group.members)
        }

    def stack_of(self, group: UnitGroup) -> StackInfo:
        """The stack a group lives in."""
        path = self.places_by_path[group.place].stack
        return next(stack for stack in self.stacks if stack.path == path)

    def of_kind(self, kind: str) -> tuple[UnitGroup, ...]:
        """All groups of one kind, by layer."""
        return tuple(group for group in self.groups if group.kind == kind)
