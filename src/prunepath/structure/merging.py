"""Find the list of layers whose tokens can merge, as the family tables say, or why none can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from prunepath.errors import RequestError
from prunepath.structure.discover import read_places
from prunepath.structure.families import FAMILIES, Family, Merging
from prunepath.structure.walk import found_stacks

__all__ = ["FoundMerging", "find_merging", "key_width"]


@dataclass(frozen=True)
class FoundMerging:
    """Where tokens of a model can merge.

    Args:
        stack: path of the list of layers.
        layers: paths of its layers.
        merging: what the table says.
        protected: tokens in front that stay.
    """

    stack: str
    layers: tuple[str, ...]
    merging: Merging
    protected: int


def find_merging(model: nn.Module, tables: Sequence[Family] = ()) -> FoundMerging:
    """The one list of layers of a model whose tokens can merge.

    Args:
        model: a transformers model.
        tables: family tables that count beside the registered ones, and before them.

    Raises:
        RequestError: there is none, and why.
    """
    stacks = found_stacks(model, tables)
    kind = str(getattr(getattr(model, "config", None), "model_type", type(model).__name__))
    reasons: list[str] = []
    fitting: list[FoundMerging] = []
    for found in stacks:
        merging = found.stack.merging
        if isinstance(merging, str):
            reasons += [merging] if merging else []
            continue
        beside = found.path.removesuffix(found.stack.layers)
        if not _has(model, f"{beside}{merging.patches}"):
            continue
        flags = (why for flag, why in merging.refuse.items() if getattr(found.config, flag, False))
        refused = next(flags, "")
        if refused:
            reasons.append(refused)
            continue
        protected = sum(_num_tokens(model, f"{beside}{name}") for name in merging.protected)
        paths = tuple(layer.path for layer in found.layers)
        fitting.append(FoundMerging(found.path, paths, merging, protected))
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(f"'{found.stack}'" for found in fitting)
        raise RequestError(
            f"token merging was asked for, and this '{kind}' model has several lists of layers "
            f"that could merge tokens ({names}); only models with one are supported"
        )
    why = reasons[0] if reasons else "it has no encoder of image patches whose table says where"
    raise RequestError(
        f"token merging was asked for, and tokens of this '{kind}' model cannot merge: {why}; "
        f"leave the token share out, or take one of the types {', '.join(_types())}"
    )


def _types() -> list[str]:
    """Model types whose tables let tokens merge."""
    return sorted(
        kind
        for name in FAMILIES
        for kind in FAMILIES[name].model_types
        if any(isinstance(stack.merging, Merging) for stack in FAMILIES[name].stacks)
        and "text" not in kind
    )


def key_width(model: nn.Module, found: FoundMerging, tables: Sequence[Family] = ()) -> int:
    """Coordinates of one head's key, as the model's code runs it: what was cut is filled up.

    Raises:
        RequestError: the tables describe no attention with these keys.
    """
    weight = f"{found.layers[0]}.{found.merging.keys}.weight"
    for place in read_places(model, tables).values():
        if place.pair_layouts and any(tensor.name == weight for tensor in place.tensors):
            return place.pair_layouts[0].sizes[-1]
    raise RequestError(
        f"token merging was asked for, and '{weight}' belongs to no attention that the family "
        "tables describe, so tokens cannot be compared; leave the token share out"
    )


def _has(model: nn.Module, path: str) -> bool:
    try:
        model.get_submodule(path)
    except AttributeError:
        return False
    return True


def _num_tokens(model: nn.Module, path: str) -> int:
    """How many tokens a parameter holds: one row, or (1, tokens, width); 0 where it is absent."""
    found: Any = model
    for name in path.split("."):
        found = getattr(found, name, None)
    if not isinstance(found, Tensor):
        return 0
    return 1 if found.ndim == 1 else int(found.shape[-2])
