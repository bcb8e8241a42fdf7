"""Plain data about a model: unit groups, the tensors they cut, and what is left alone.

Nothing here holds a tensor or writes a weight, so a `Structure` travels inside a solution path
and `extract` can refuse a budget before it loads a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

from prunepath.structure.axes import AxisLayout

__all__ = ["GateSite", "LeftAlone", "PlaceInfo", "Structure", "TensorInfo", "UnitGroup"]


@dataclass(frozen=True, kw_only=True)
class GateSite:
    """Where one scalar per unit multiplies an activation.

    Args:
        module: full module path.
        side: `"input"` or `"output"` of that module.
        layout: what the last axis of that activation is made of.
    """

    module: str
    side: str
    layout: AxisLayout


@dataclass(frozen=True, kw_only=True)
class UnitGroup:
    """All units of one kind in one place.

    Args:
        name: `"layers.3.ffn_channel"`; unique in a model.
        kind: a word of the glossary.
        layer: index of the layer.
        place: full module path of the sub-layer.
        unit: layout whose positions are the units.
        tied: factor of `unit` whose values keep equally many units (`""`: none).
        gate: where the gate sits.
        consumer: full path of the linear map the refit repairs (`""`: none).
    """

    name: str
    kind: str
    layer: int
    place: str
    unit: AxisLayout
    tied: str
    gate: GateSite
    consumer: str

    @property
    def num_units(self) -> int:
        """Number of units in the group."""
        return self.unit.size

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
    """One weight or bias of a place: its axes and what one element costs.

    Args:
        name: full parameter name.
        axes: one layout per tensor axis; a layout with no names is never cut.
        macs_per_token: 1 for a linear map's weight, 0 for a bias.
        itemsize: bytes per element.
    """

    name: str
    axes: tuple[AxisLayout, ...]
    macs_per_token: int
    itemsize: int


@dataclass(frozen=True, kw_only=True)
class PlaceInfo:
    """One sub-layer of one layer: its tensors and its costs beyond them."""

    path: str
    layer: int
    tensors: tuple[TensorInfo, ...]
    pair_layouts: tuple[AxisLayout, ...] = ()
    cache_layouts: tuple[AxisLayout, ...] = ()
    cache_itemsize: int = 0
    native: tuple[str, ...] = ()
    runtime: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


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
        family: name of the family table.
        model_type: `config.model_type` of the model.
        groups: unit groups, layer by layer.
        places: sub-layers with units.
        left_alone: what is not cut, and why.
        num_params: parameters of the whole dense model, tied weights counted once.
        block_params: parameters of the layers (everything a ratio is counted over).
        weight_bytes: bytes of all parameters.
        fixed_macs_per_token: MACs per token of linear maps outside the places.
        num_layers: layers of the model, with units or without.
        config_sizes: config field -> factors whose product it states.
        legal_sizes: config field -> values its config class accepts, where it is choosy.
    """

    family: str
    model_type: str
    groups: tuple[UnitGroup, ...]
    places: tuple[PlaceInfo, ...]
    left_alone: tuple[LeftAlone, ...]
    num_params: int
    block_params: int
    weight_bytes: int
    fixed_macs_per_token: int
    num_layers: int
    config_sizes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    legal_sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def config_values(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Values of the config fields that state these factor sizes."""
        return {
            field: prod(sizes[factor] for factor in factors)
            for field, factors in self.config_sizes.items()
        }

    def accepts(self, sizes: Mapping[str, int]) -> bool:
        """Whether the model's config class takes the values of these factor sizes."""
        values = self.config_values(sizes)
        return all(values[field] in legal for field, legal in self.legal_sizes.items())

    @property
    def kinds(self) -> tuple[str, ...]:
        """Unit kinds present, in table order."""
        return tuple(dict.fromkeys(group.kind for group in self.groups))

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

    def of_kind(self, kind: str) -> tuple[UnitGroup, ...]:
        """All groups of one kind, by layer."""
        return tuple(group for group in self.groups if group.kind == kind)
