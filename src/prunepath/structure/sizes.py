"""Evaluate the size expressions of a family table on a module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from prunepath.errors import ModelError
from prunepath.structure.families.table import Place
from prunepath.structure.matrices import input_width, is_linear, out_width

__all__ = ["place_factors"]


def place_factors(place: Place, module: nn.Module, config: Any) -> dict[str, int]:
    """Sizes of all factors of a place, read off a module and its config.

    Raises:
        ModelError: an expression of the table names nothing this model has.
    """
    sizes: dict[str, int] = {}
    for name, text in place.sizes.items():
        first, *rest = (_term(term.strip(), module, config, sizes) for term in text.split("//"))
        for divisor in rest:
            first = first // divisor if divisor else 0
        sizes[name] = first
    return sizes


def _term(text: str, module: nn.Module, config: Any, sizes: Mapping[str, int]) -> int:
    if text.isdigit():
        return int(text)
    if text in sizes:
        return sizes[text]
    owner, _, last = text.rpartition(".")
    found: Any = None
    if owner == "config":
        found = getattr(config, last, None)
    elif text.startswith("."):
        found = _attribute(module, text[1:])
    elif last in ("in", "out"):
        linear = _attribute(module, owner)
        if is_linear(linear):
            found = out_width(linear) if last == "out" else input_width(linear)
    if found is None:
        raise ModelError(
            f"the family table asks for the size '{text}', and {type(module).__name__} of this "
            f"'{getattr(config, 'model_type', '?')}' model has no such thing"
        )
    return int(found)


def _attribute(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name, None)
    return module
