"""A `Structure` as JSON and back, so that a solution path is complete without its model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from prunepath.structure.axes import Axis, AxisLayout
from prunepath.structure.units import (
    GateSite,
    LeftAlone,
    PlaceInfo,
    StackInfo,
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
    fields["stacks"] = tuple(_stack(item) for item in data["stacks"])
    fields["tables"] = tuple(data.get("tables", ()))
    fields["fixed_macs"] = tuple(data["fixed_macs"])
    return Structure(**fields)


def _stack(data: dict[str, Any]) -> StackInfo:
    config_sizes = {k: tuple(v) for k, v in data["config_sizes"].items()}
    legal_sizes = {k: tuple(v) for k, v in data["legal_sizes"].items()}
    return StackInfo(**{**data, "config_sizes": config_sizes, "legal_sizes": legal_sizes})


def _layout(data: dict[str, Any]) -> AxisLayout:
    return AxisLayout(tuple(data["names"]), tuple(int(size) for size in data["sizes"]))


def _axis(data: dict[str, Any]) -> Axis:
    parts = tuple(_layout(part) for part in data["parts"])
    after = _axis(data["after"]) if data.get("after") else None
    return Axis(parts, _layout(data["outer"]), int(data["fixed_width"]), after)


def _group(data: dict[str, Any]) -> UnitGroup:
    gate = GateSite(**{**data["gate"], "axis": _axis(data["gate"]["axis"])})
    members = tuple(data.get("members", ()))
    return UnitGroup(**{**data, "unit": _layout(data["unit"]), "gate": gate, "members": members})


def _place(data: dict[str, Any]) -> PlaceInfo:
    tensors = tuple(
        TensorInfo(
            **{
                **item,
                "axes": tuple(_axis(axis) for axis in item["axes"]),
                "rows": tuple(item["rows"]),
            }
        )
        for item in data["tensors"]
    )
    return PlaceInfo(
        **{
            **data,
            "tensors": tensors,
            "pair_layouts": tuple(_layout(item) for item in data["pair_layouts"]),
            "cache_layouts": tuple(_layout(item) for item in data["cache_layouts"]),
            "native": tuple(data["native"]),
            "pairs": tuple(data["pairs"]),
        }
    )
