"""Surgery: physically smaller tensors. The only room that writes weights.

`cut` slices every tensor of every place along the axes a selection shortens, then lets the
place's runtime adapt: the family's own code where it can run the new sizes, a module of ours
where it cannot.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from prunepath.structure.axes import BoolArray
from prunepath.structure.matrices import set_widths_
from prunepath.structure.selection import Selection, remains, sizes_by_place, tensor_positions
from prunepath.structure.units import PlaceInfo, Structure, UnitGroup
from prunepath.surgery.reshape import RECORD_VERSION
from prunepath.surgery.runtime import adapt_place_, running_sizes

__all__ = ["cut", "cut_", "cut_places_", "record_", "record_sizes_", "slice_", "stock_fields"]


def cut(model: nn.Module, structure: Structure, selection: Selection) -> nn.Module:
    """A smaller copy of the model; the given one is left as it is.

    Args:
        model: the dense model.
        structure: its structure.
        selection: units kept.

    Returns:
        A new model whose logits equal the gated model's.
    """
    smaller = copy.deepcopy(model)
    cut_(smaller, structure, selection)
    return smaller


def cut_(model: nn.Module, structure: Structure, selection: Selection) -> None:
    """Cut a model in place.

    Args:
        model: the dense model; changed.
        structure: its structure.
        selection: units kept.

    Raises:
        RequestError: the selection does not fit the structure.
    """
    selection.validate(structure)
    cut_places_(model, structure, selection)
    record_(model, structure, selection)


def cut_places_(
    model: nn.Module, structure: Structure, selection: Selection, only: Container[str] | None = None
) -> None:
    """Cut the tensors of all places, or of those named, and leave the config as it is."""
    for place in structure.places:
        if (only is None or place.path in only) and remains(structure, place, selection):
            _cut_place_(model, structure, place, selection)


def _cut_place_(
    model: nn.Module, structure: Structure, place: PlaceInfo, selection: Selection
) -> None:
    groups = structure.groups_by_place[place.path]
    if all(selection.of(group).all() for group in groups):
        return
    for tensor in place.tensors:
        for dim, axis in enumerate(tensor.axes):
            if axis.cuttable:
                kept = tensor_positions(tensor, dim, place, groups, selection)
                if not kept.all():
                    slice_(model, tensor.name, dim, kept)
    for group in groups:
        staying = _kept_members(group, selection)
        for path in group.members:
            if path not in staying:
                _remove_(model, path)
    adapt_place_(model, place, groups, selection)


def _kept_members(group: UnitGroup, selection: Selection) -> list[str]:
    """Paths of the modules that stay with the units of a group."""
    pairs = zip(group.members, selection.of(group), strict=False)
    return [path for path, stays in pairs if stays]


def _remove_(model: nn.Module, path: str) -> None:
    """Take a module out of its parent; the others keep their names."""
    parent, _, name = path.rpartition(".")
    delattr(model.get_submodule(parent), name)


def slice_(model: nn.Module, name: str, dim: int, kept: BoolArray) -> None:
    """Keep some positions of one dimension of a parameter."""
    owner, _, attribute = name.rpartition(".")
    module: Any = model.get_submodule(owner)
    parameter = getattr(module, attribute)
    index = torch.from_numpy(np.flatnonzero(kept)).to(parameter.device)
    shorter = nn.Parameter(
        parameter.detach().index_select(dim, index).contiguous(),
        requires_grad=parameter.requires_grad,
    )
    setattr(module, attribute, shorter)
    set_widths_(module)


def record_(model: nn.Module, structure: Structure, selection: Selection) -> None:
    """Write the sizes into the config: the family's own fields where all layers agree on
    something its code can run, our own record everywhere else."""
    config: Any = model.config
    sizes = sizes_by_place(structure, selection)
    left = [place for place in structure.places if place.path in sizes]
    changed = [place for place in left if sizes[place.path] != place.factors]
    recorded = bool(getattr(config, "prunepath", None))  # cut before: its own fields are dense
    fields = None if recorded else stock_fields(structure, sizes)
    if fields is not None:
        for path, values in fields.items():
            part = getattr(config, path) if path else config
            if "num_attention_heads" in values and getattr(part, "head_dim", None) is None:
                # Derived from the head count, which changes.
                part.head_dim = part.hidden_size // part.num_attention_heads
            for field, value in values.items():
                setattr(part, field, value)
        return
    record_sizes_(model, structure, changed, selection)


def record_sizes_(
    model: nn.Module,
    structure: Structure,
    places: Sequence[PlaceInfo],
    selection: Selection,
) -> None:
    """Write the sizes of some places into our own record, beside those that are in it.

    Args:
        model: the cut model; its config changes.
        structure: the dense model's structure.
        places: what is written down.
        selection: units kept.
    """
    config: Any = model.config
    sizes = sizes_by_place(structure, selection)
    before = dict((getattr(config, "prunepath", None) or {}).get("places", {}))
    for place in structure.places:
        if place.path not in sizes:
            before.pop(place.path, None)  # cut before, and gone now
    for place in places:
        # What else was written down of it (biases it was given) stays.
        entry = {**before.get(place.path, {}), "sizes": sizes[place.path]}
        run = running_sizes(place, sizes[place.path], structure.groups_by_place[place.path])
        entry.pop("run", None)
        if run != sizes[place.path]:
            entry["run"] = run
        for group in structure.groups_by_place[place.path]:
            if group.members:
                entry["members"] = [
                    path.removeprefix(f"{place.module}.")
                    for path in _kept_members(group, selection)
                ]
        before[place.path] = entry
    config.prunepath = {
        "format_version": RECORD_VERSION,
        "base_model_type": structure.model_type,
        "places": before,
    }
    if structure.tables:
        config.prunepath["tables"] = [dict(table) for table in structure.tables]


def stock_fields(
    structure: Structure, sizes: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, int]] | None:
    """Config fields that say all that was cut, by the path of their config; None if none can."""
    fields: dict[str, dict[str, int]] = {}
    for stack in structure.stacks:
        stated = {factor for factors in stack.config_sizes.values() for factor in factors}
        places = [
            place for place in structure.places if place.stack == stack.path and place.path in sizes
        ]
        together: dict[str, int] = {}
        for place in places:
            now = sizes[place.path]
            if any(now[name] != size for name, size in place.factors.items() if name not in stated):
                return None
            for name, size in now.items():
                if name in stated and together.setdefault(name, size) != size:
                    return None
        values = stack.config_values(together)
        if not stack.accepts(together) or not all(values.values()):
            return None
        known = fields.setdefault(stack.config, {})
        if any(known.get(name, value) != value for name, value in values.items()):
            return None  # two stacks, one config field, two sizes
        known.update(values)
    return fields
