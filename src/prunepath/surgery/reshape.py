"""Give a freshly built dense model the sizes a cut wrote down, for its weights to be loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from prunepath.errors import ModelError
from prunepath.structure.discover import read_places
from prunepath.structure.families.portable import family_from_dict
from prunepath.structure.matrices import new_bias_, set_widths_
from prunepath.structure.tokens import TokenSchedule
from prunepath.structure.units import PlaceInfo, TensorInfo
from prunepath.surgery.experts import unfuse_experts_
from prunepath.surgery.filled import fill_
from prunepath.surgery.merging import install_merging_
from prunepath.surgery.record import RECORD_VERSION, require_readable
from prunepath.surgery.runtime import install_, sides_to_fill, state_sizes_

__all__ = ["RECORD_VERSION", "reshape_"]


def reshape_(model: nn.Module, config: Any, record: Mapping[str, Any]) -> None:
    """Resize a freshly built dense model to recorded sizes; weights are left unset.

    Args:
        model: a model built from the dense config, usually on the meta device; changed.
        config: its config.
        record: the `prunepath` entry of a saved config.

    Raises:
        ModelError: the record is newer than this library or does not fit the model.
    """
    require_readable(record)
    unfuse_experts_(model, record["places"])
    tables = [family_from_dict(table) for table in record.get("tables", ())]
    kept = config.prunepath
    config.prunepath = None  # the model is dense, and must be read as such
    try:
        places = read_places(model, tables)
    finally:
        config.prunepath = kept
    for path, entry in record["places"].items():
        if path not in places:
            raise ModelError(
                f"the saved record has sizes for '{path}', and this model has no such place; "
                "config.json was edited, or its family is not registered here "
                "(prunepath.register_family)"
            )
        _keep_members_(model, path, entry.get("members", ()))
        sizes = {name: int(size) for name, size in entry["sizes"].items()}
        run = {name: int(size) for name, size in entry.get("run", sizes).items()}
        _reshape_place_(model, places[path], sizes, run)
        for name in entry.get("biases", ()):
            new_bias_(model.get_submodule(f"{places[path].module}.{name}"))
    if record.get("tokens"):
        install_merging_(model, TokenSchedule.from_record(record["tokens"]), tables)


def _keep_members_(model: nn.Module, path: str, members: Sequence[str]) -> None:
    """Take out the modules that did not stay beside those that did."""
    kept = {f"{path}.{member}" for member in members}
    for parent in {name.rpartition(".")[0] for name in kept}:
        module = model.get_submodule(parent)
        for name in [name for name, _ in module.named_children()]:
            if f"{parent}.{name}" not in kept:
                delattr(module, name)


def _reshape_place_(
    model: nn.Module, place: PlaceInfo, sizes: Mapping[str, int], run: Mapping[str, int]
) -> None:
    for tensor in place.tensors:
        _resize_(model, tensor, run if tensor.whole else sizes)
    if place.runtime:
        install_(model, place, place.factors, sizes)
        return
    state_sizes_(model, place, run)
    for linear, side, axis in sides_to_fill(model, place, sizes, run):
        unknown = np.zeros(axis.resized(sizes).size, dtype=np.int64)  # the state dict says where
        fill_(linear, side, unknown, axis.resized(run).size)


def _resize_(model: nn.Module, tensor: TensorInfo, sizes: Mapping[str, int]) -> None:
    owner, _, attribute = tensor.name.rpartition(".")
    module: Any = model.get_submodule(owner)
    old = getattr(module, attribute)
    shape = [axis.resized(sizes).size for axis in tensor.axes]
    if list(old.shape) == shape:
        return
    empty = torch.empty(shape, dtype=old.dtype, device=old.device)
    setattr(module, attribute, nn.Parameter(empty, requires_grad=old.requires_grad))
    set_widths_(module)
