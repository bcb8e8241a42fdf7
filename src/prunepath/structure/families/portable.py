"""Family tables as JSON, so that a path and a cut model carry the tables that did not ship with
this library: those a user registered, and those that were guessed from names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from prunepath.structure.families.table import Family, Kind, Merging, Place, Stack

__all__ = ["carried_tables", "family_from_dict", "family_to_dict"]


def family_to_dict(family: Family) -> dict[str, Any]:
    """JSON-ready form; mappings whose order counts are lists of pairs: files sort their keys."""
    data = asdict(family)
    for stack in data["stacks"]:
        for place in stack["places"]:
            for name in _ORDERED:
                place[name] = [list(item) for item in place[name].items()]
    return data


def family_from_dict(data: Mapping[str, Any]) -> Family:
    """Read `family_to_dict`'s form back."""
    stacks = tuple(_stack(item) for item in data["stacks"])
    return Family(name=data["name"], model_types=tuple(data["model_types"]), stacks=stacks)


def carried_tables(model: Any) -> list[Family]:
    """The tables a cut model brings along, because they did not ship with this library."""
    record = getattr(getattr(model, "config", None), "prunepath", None) or {}
    return [family_from_dict(table) for table in record.get("tables", ())]


_ORDERED = ("sizes", "linears")  # sizes use earlier ones; the first linear map sees the queries


def _stack(data: Mapping[str, Any]) -> Stack:
    fields = dict(data)
    fields["places"] = tuple(_place(item) for item in data["places"])
    fields["config_sizes"] = {k: tuple(v) for k, v in data["config_sizes"].items()}
    if isinstance(data.get("merging"), Mapping):
        names = ("attention", "ffn", "protected")
        tuples = {name: tuple(data["merging"][name]) for name in names}
        fields["merging"] = Merging(**{**data["merging"], **tuples})
    return Stack(**fields)


def _place(data: Mapping[str, Any]) -> Place:
    fields = dict(data)
    fields["kinds"] = tuple(Kind(**kind) for kind in data["kinds"])
    fields["sizes"] = dict(data["sizes"])
    fields["linears"] = {name: (out, into) for name, (out, into) in data["linears"]}
    fields["tensors"] = {name: tuple(axes) for name, axes in data["tensors"].items()}
    fields["refuse"] = {name: (tuple(k), why) for name, (k, why) in data["refuse"].items()}
    for name in ("cache", "native", "sometimes"):
        fields[name] = tuple(data[name])
    return Place(**fields)
