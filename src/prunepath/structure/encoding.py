"""A `Structure` as JSON and back, so that a solution path is complete without its model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from prunepath.structure.axes import AxisLayout
from prunepath.structure.units import (
    GateSite,
    LeftAlone,
    PlaceInfo,
    Structure,
    TensorInfo,
    UnitGroup,
)

__all__ = ["structure_from_dict", "structure_to_dict"]


def structure_to_dict(structure: Structure) -> dict[str, Any]:
    """JSON-ready form of a structure: nested dicts, layouts as `{"names", "sizes"}`."""
    return asdict(structure)


def structure_from_dict(data: dict[str, Any]) -> Structure:
    """Read `structure_to_dict`'s form back.

    Raises:
        KeyError, TypeError, ValueError: the data is not such a form; the caller names the file.
    """
    fields = dict(data)
    fields["groups"] = tuple(_group(item) for item in data["groups"])
    fields["places"] = tuple(_place(item) for item in data["places"])
    fields["left_alone"] = tuple(LeftAlone(**item) for item in data["left_alone"])
    fields["config_sizes"] = {k: tuple(v) for k, v in data["config_sizes"].items()}
    fields["legal_sizes"] = {k: tuple(v) for k, v in data["legal_sizes"].items()}
    return Structure(**fields)


def _layout(data: dict[str, Any]) -> AxisLayout:
    return AxisLayout(tuple(data["names"]), tuple(int(size) for size in data["sizes"]))


def _group(data: dict[str, Any]) -> UnitGroup:
    gate = GateSite(**{**data["gate"], "layout": _layout(data["gate"]["layout"])})
    return UnitGroup(**{**data, "unit": _layout(data["unit"]), "gate": gate})


def _place(data: dict[str, Any]) -> PlaceInfo:
    tensors = tuple(
        TensorInfo(**{**item, "axes": tuple(_layout(axis) for axis in item["axes"])})
        for item in data["tensors"]
    )
    return PlaceInfo(
        **{
            **data,
            "tensors": tensors,
            "pair_layouts": tuple(_layout(item) for item in data["pair_layouts"]),
            "cache_layouts": tuple(_layout(item) for item in data["cache_layouts"]),
            "native": tuple(data["native"]),
        }
    )
