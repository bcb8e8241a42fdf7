"""Make a sub-layer run its new sizes: set its attributes, or swap in a module of ours.

The family's own code stays wherever it can run the sizes. A runtime module keeps the names of the
parameters it takes over, so state dicts, adapters and device maps go on working.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from torch import nn

from prunepath.registry import Registry
from prunepath.structure.axes import IntArray
from prunepath.structure.selection import Selection, place_sizes
from prunepath.structure.units import PlaceInfo, UnitGroup

__all__ = ["RUNTIMES", "Runtime", "adapt_place_", "install_", "kept_by_lane"]


class Runtime(Protocol):
    """A module that runs sizes the family's own code cannot."""

    @classmethod
    def take_over(
        cls, module: nn.Module, dense: Mapping[str, int], sizes: Mapping[str, int]
    ) -> nn.Module:
        """Build the module from the sub-layer it replaces, whose tensors are already cut."""
        ...

    def set_kept_(self, kept: Mapping[str, IntArray]) -> None:
        """Tell it which values of each factor are left, shape (lanes, size) each."""
        ...


RUNTIMES: Registry[type[Runtime]] = Registry("runtime module", "prunepath.runtimes")
RUNTIMES.register("rotary_attention", "prunepath.surgery.rotary_attention:RotaryAttention")


def adapt_place_(
    model: nn.Module, place: PlaceInfo, groups: Sequence[UnitGroup], selection: Selection
) -> None:
    """Adapt a sub-layer whose tensors have just been cut."""
    layouts = [axis for tensor in place.tensors for axis in tensor.axes if axis.cuttable]
    dense = place_sizes((), layouts, selection)
    sizes = place_sizes(groups, layouts, selection)
    module = install_(model, place, dense, sizes)
    if module is not None:
        module.set_kept_(kept_by_lane(groups, selection))  # type: ignore[operator]


def install_(
    model: nn.Module, place: PlaceInfo, dense: Mapping[str, int], sizes: Mapping[str, int]
) -> nn.Module | None:
    """Set attributes, and swap in the runtime module where the sizes need it.

    Args:
        model: the model; changed.
        place: the sub-layer.
        dense: factor sizes before the cut.
        sizes: factor sizes after it.

    Returns:
        The runtime module, or None where the family's own code runs the sizes.
    """
    module = model.get_submodule(place.path)
    foreign = any(sizes[name] != dense[name] for name in dense if name not in place.native)
    emptied = bool(place.runtime) and any(size == 0 for size in sizes.values())
    ours = bool(place.runtime) and isinstance(module, RUNTIMES[place.runtime])  # cut before
    for attribute, factor in place.attributes.items():
        if hasattr(module, attribute):
            setattr(module, attribute, sizes[factor])
    if not (foreign or emptied or ours):
        return None
    replacement = RUNTIMES[place.runtime].take_over(module, dense, sizes)
    parent, _, name = place.path.rpartition(".")
    setattr(model.get_submodule(parent), name, replacement)
    return replacement


def kept_by_lane(groups: Sequence[UnitGroup], selection: Selection) -> dict[str, IntArray]:
    """What is left of every factor: of a tied one, the values each surviving lane keeps, shape
    (lanes, size); of the lanes themselves, their indices."""
    lanes_left: dict[str, IntArray] = {}
    for group in groups:
        if not group.tied:
            lanes_left[group.unit.names[0]] = np.flatnonzero(selection.of(group))
    kept: dict[str, IntArray] = {}
    for group in groups:
        if group.tied:
            (factor,) = (name for name in group.unit.names if name != group.tied)
            mask = selection.of(group).reshape(group.num_lanes, -1)
            lanes = lanes_left.get(group.tied, np.arange(group.num_lanes))
            rows = [np.flatnonzero(mask[lane]) for lane in lanes]
            width = int(mask[0].sum())
            kept[factor] = np.array(rows, dtype=np.int64).reshape(len(rows), width)
    return {**lanes_left, **kept}
