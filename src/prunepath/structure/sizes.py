"""Evaluate the size expressions of a family table on a module."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from prunepath.errors import ModelError
from prunepath.structure.families.table import Place
from prunepath.structure.matrices import input_width, is_linear, is_router, out_width

__all__ = ["evaluate", "place_factors"]


def place_factors(place: Place, module: nn.Module, config: Any) -> dict[str, int]:
    """Sizes of all factors of a place, read off a module and its config.

    Raises:
        ModelError: an expression of the table names nothing this model has.
    """
    sizes: dict[str, int] = {}
    for name, text in place.sizes.items():
        sizes[name] = evaluate(text, module, config, sizes)
    return sizes


def evaluate(text: str, module: nn.Module, config: Any, sizes: Mapping[str, int]) -> int:
    """The value of one expression: `*` and `//` from left to right, then `+` and `-`.

    Raises:
        ModelError: it names nothing this model has.
    """
    total, sign = 0, 1
    for piece in re.split(r" ([-+]) ", text):
        if piece in ("+", "-"):
            sign = 1 if piece == "+" else -1
        else:
            total += sign * _product(piece, module, config, sizes)
    return total


def _product(text: str, module: nn.Module, config: Any, sizes: Mapping[str, int]) -> int:
    first, *rest = re.split(r" (\*|//) ", text)
    value = _term(first, module, config, sizes)
    for operator, term in zip(rest[::2], rest[1::2], strict=True):
        number = _term(term, module, config, sizes)
        if operator == "*":
            value *= number
        else:
            value = value // number if number else 0
    return int(value)


def _term(text: str, module: nn.Module, config: Any, sizes: Mapping[str, int]) -> float:
    text = text.strip()
    if text.isdigit():
        return int(text)
    if text in sizes:
        return sizes[text]
    owner, _, last = text.rpartition(".")
    found: Any = None
    if text.startswith("config."):
        found = _attribute(config, text[len("config.") :])
    elif text.startswith("."):
        found = _attribute(module, text[1:])
    elif last in ("in", "out"):
        linear = _attribute(module, owner)
        if is_linear(linear) or is_router(linear):
            found = out_width(linear) if last == "out" else input_width(linear)
    if found is None:
        raise ModelError(
            f"the family table asks for the size '{text}', and {type(module).__name__} of this "
            f"'{getattr(config, 'model_type', '?')}' model has no such thing"
        )
    return float(found) if isinstance(found, float) else int(found)


def _attribute(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = module.get(name) if isinstance(module, Mapping) else getattr(module, name, None)
    return module
