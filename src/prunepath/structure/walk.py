"""Find the stacks of known families anywhere inside a model, whole or composed of parts.

A model of known parts is covered without a table of its own: every submodule that carries a
config is asked for its type, so the vision tower of an image-text model or the backbone of a
segmentation model is found by the table of the tower itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from prunepath.structure.families import Family, Stack, family_for

__all__ = ["FoundLayer", "FoundStack", "found_stacks", "own_config_path"]


@dataclass(frozen=True)
class FoundLayer:
    """One layer: its path and its place in the count."""

    path: str
    index: int


@dataclass(frozen=True)
class FoundStack:
    """One stack of a family in a model.

    Args:
        family: the table.
        stack: the stack of the table.
        path: path of its (first) module list.
        config: the config its sizes are stated in.
        config_path: where that config hangs in the model's config; None: nowhere.
        layers: its layers, in order.
    """

    family: Family
    stack: Stack
    path: str
    config: Any
    config_path: str | None
    layers: tuple[FoundLayer, ...]


def found_stacks(model: nn.Module, more: Sequence[Family] = ()) -> list[FoundStack]:
    """All stacks of known families, outer parts first.

    Args:
        model: a transformers model.
        more: tables that count beside the registered ones, and before them.
    """
    found: list[FoundStack] = []
    taken: set[str] = set()
    lists = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    for prefix, part in _parts(model):
        config: Any = part.config
        kind = _base_type(config)
        own = (family for family in more if kind in family.model_types)
        family = next(own, None) or family_for(kind)
        if family is None:
            continue
        for stack in family.stacks:
            for paths in _matches(stack, prefix, lists, taken, model, config).values():
                taken.update(paths)
                layers = [f"{path}.{i}" for path in paths for i in _numbers(model, path)]
                found.append(
                    FoundStack(
                        family=family,
                        stack=stack,
                        path=paths[0],
                        config=config,
                        config_path=own_config_path(model, config),
                        layers=tuple(FoundLayer(path, i) for i, path in enumerate(layers)),
                    )
                )
    return found


def _base_type(config: Any) -> str:
    """The type of the model a config was written for, before any cut."""
    return str(getattr(config, "base_model_type", "") or getattr(config, "model_type", ""))


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The model and every submodule with a config of its own type, outer first."""
    for name, module in model.named_modules():
        if getattr(module, "config", None) is not None and hasattr(module, "base_model_prefix"):
            yield name, module


def _matches(
    stack: Stack, prefix: str, lists: list[str], taken: set[str], model: nn.Module, config: Any
) -> dict[str, list[str]]:
    """Module lists that fit a stack's pattern: what is in front of the match -> lists."""
    pattern = re.escape(stack.layers).replace(r"\*", r"[^.]+")
    ours = re.compile(rf"((?:[^.]+\.)*?){pattern}$")
    start = f"{prefix}." if prefix else ""
    found: dict[str, list[str]] = {}
    for name in lists:
        if not name.startswith(start) or name in taken:
            continue
        match = ours.match(name[len(start) :])
        if match and not _inside_other(model, prefix, name, config):
            found.setdefault(match.group(1), []).append(name)
    return found


def _inside_other(model: nn.Module, prefix: str, path: str, config: Any) -> bool:
    """Whether a part between `prefix` and `path` has a type of its own, whose table decides."""
    names = path.split(".")
    start = prefix.count(".") + 1 if prefix else 0
    for end in range(start + 1, len(names)):
        part: Any = model.get_submodule(".".join(names[:end]))
        other = getattr(part, "config", None)
        typed = other is not None and hasattr(part, "base_model_prefix")
        if typed and _base_type(other) != _base_type(config) and family_for(_base_type(other)):
            return True
    return False


def _numbers(model: nn.Module, path: str) -> range:
    layers: Any = model.get_submodule(path)
    return range(len(layers))


def own_config_path(model: nn.Module, config: Any) -> str | None:
    """Attribute path of a config inside the model's own, by identity; empty: the model's own."""
    top: Any = getattr(model, "config", None)
    if config is top:
        return ""
    for name in getattr(top, "sub_configs", None) or ():
        if getattr(top, name, None) is config:
            return str(name)
    # Parts built from a copy of the whole config (the stacks of T5) state the same fields.
    return "" if _base_type(config) == _base_type(top) else None
