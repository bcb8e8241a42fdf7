"""Which sub-layers a method of depth orders, and which layers can leave whole."""

from __future__ import annotations

from collections.abc import Sequence

from prunepath.structure.units import PlaceInfo, Structure, UnitGroup

__all__ = ["Layer", "layers_of", "sublayers", "whole_layers"]

Layer = tuple[UnitGroup, ...]
"""The sub-layers of one layer."""


def sublayers(structure: Structure) -> tuple[UnitGroup, ...]:
    """All groups whose one unit is a sub-layer."""
    return tuple(group for group in structure.groups if group.is_sublayer)


def layers_of(structure: Structure, groups: Sequence[UnitGroup]) -> dict[str, Layer]:
    """Path of a layer -> those of the groups that are in it, in the order of the structure."""
    found: dict[str, Layer] = {}
    for group in groups:
        path = structure.places_by_path[group.place].layer_path
        found[path] = (*found.get(path, ()), group)
    return found


def whole_layers(structure: Structure) -> dict[str, Layer]:
    """Layers that can leave whole: all that they add to the residual stream comes from units.

    A layer with experts behind a router, or with a sub-layer that did not prove exact, would leave
    a part of itself behind.

    Returns:
        Path of the layer -> its sub-layers.
    """
    owned = {group.place for group in sublayers(structure)}
    partly = {
        place.layer_path
        for place in structure.places
        if place.path not in owned and not _emptied(place)
    }
    refused = {item.module for item in structure.left_alone}
    return {
        path: groups
        for path, groups in layers_of(structure, sublayers(structure)).items()
        if path not in partly and not any(name in refused for name in _siblings(structure, groups))
    }


def _emptied(place: PlaceInfo) -> bool:
    """Whether an earlier cut took all of it."""
    return not any(place.factors.values())


def _siblings(structure: Structure, groups: Layer) -> set[str]:
    """Names that sub-layers of the same layer have, as those of other layers of the stack tell."""
    stack, index = structure.stack_of(groups[0]).path, groups[0].layer
    return {
        group.name.replace(f".{group.layer}.", f".{index}.", 1)
        for group in structure.groups
        if group.is_sublayer and structure.places_by_path[group.place].stack == stack
    }
