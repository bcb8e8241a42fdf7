"""Surgery: physically smaller tensors. The only room that writes weights.

`cut` slices every tensor of every place along the axes a selection shortens, then lets the
place's runtime adapt: the family's own code where it can run the new sizes, a module of ours
where it cannot.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import nn

from prunepath.structure.selection import Selection, kept_positions, place_sizes
from prunepath.structure.units import PlaceInfo, Structure
from prunepath.surgery.reshape import RECORD_VERSION
from prunepath.surgery.runtime import adapt_place_

__all__ = ["cut", "cut_", "layer_sizes", "slice_linear_"]


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
    for place in structure.places:
        _cut_place_(model, structure, place, selection)
    record_sizes_(model, structure, layer_sizes(structure, selection))


def _cut_place_(
    model: nn.Module, structure: Structure, place: PlaceInfo, selection: Selection
) -> None:
    groups = structure.groups_by_place[place.path]
    if all(selection.of(group).all() for group in groups):
        return
    for tensor in place.tensors:
        owner, _, attribute = tensor.name.rpartition(".")
        linear = model.get_submodule(owner)
        assert isinstance(linear, nn.Linear)
        for dim, axis in enumerate(tensor.axes):
            kept = kept_positions(axis, groups, selection)
            if not kept.all():
                slice_linear_(linear, attribute, dim, kept)
    adapt_place_(model, place, groups, selection)


def slice_linear_(linear: nn.Linear, attribute: str, dim: int, kept: np.ndarray) -> None:
    """Keep some positions of one axis of a linear map's weight or bias."""
    parameter = getattr(linear, attribute)
    index = torch.from_numpy(np.flatnonzero(kept)).to(parameter.device)
    shorter = nn.Parameter(
        parameter.detach().index_select(dim, index).contiguous(),
        requires_grad=parameter.requires_grad,
    )
    setattr(linear, attribute, shorter)
    if attribute == "weight":
        linear.out_features, linear.in_features = shorter.shape


def layer_sizes(structure: Structure, selection: Selection) -> list[dict[str, int]]:
    """Sizes of all cut factors in every layer after a selection."""
    sizes: list[dict[str, int]] = [{} for _ in range(structure.num_layers)]
    for place in structure.places:
        layouts = [axis for tensor in place.tensors for axis in tensor.axes if axis.cuttable]
        found = place_sizes(structure.groups_by_place[place.path], layouts, selection)
        sizes[place.layer].update(found)
    return sizes


def record_sizes_(model: nn.Module, structure: Structure, sizes: list[dict[str, int]]) -> None:
    """Write the sizes into the config: the family's own fields where all layers agree on
    something its code can run, our own record everywhere else."""
    config: Any = model.config
    native = {factor for place in structure.places for factor in place.native}
    dense = layer_sizes(structure, Selection({}))
    uniform = all(layer == sizes[0] for layer in sizes)
    foreign = any(
        layer[factor] != whole[factor]
        for layer, whole in zip(sizes, dense, strict=True)
        for factor in layer
        if factor not in native
    )
    recorded = bool(getattr(config, "prunepath", None))  # cut before: its own fields are dense
    stock = uniform and not foreign and not recorded and structure.accepts(sizes[0])
    if stock and all(structure.config_values(sizes[0]).values()):
        if getattr(config, "head_dim", None) is None:  # derived from the head count, which changes
            config.head_dim = config.hidden_size // config.num_attention_heads
        for field, value in structure.config_values(sizes[0]).items():
            setattr(config, field, value)
        return
    config.prunepath = {
        "format_version": RECORD_VERSION,
        "family": structure.family,
        "base_model_type": structure.model_type,
        "layers": sizes,
    }
