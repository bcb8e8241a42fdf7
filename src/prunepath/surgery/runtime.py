"""Make a sub-layer run its new sizes: set its attributes, or swap in a module of ours.

The family's own code stays wherever it can run the sizes. A runtime module keeps the names of the
parameters it takes over, so state dicts, adapters and device maps go on working.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from torch import nn

from prunepath.registry import Registry
from prunepath.structure.axes import Axis, AxisLayout, IntArray
from prunepath.structure.matrices import is_transposed, positions_at
from prunepath.structure.selection import (
    Selection,
    kept_positions,
    place_sizes,
    run_positions,
    settled,
    untied,
)
from prunepath.structure.units import PlaceInfo, UnitGroup
from prunepath.surgery.filled import fill_, positions_within

__all__ = [
    "RUNTIMES",
    "Runtime",
    "adapt_place_",
    "install_",
    "kept_by_lane",
    "running_sizes",
    "sides_to_fill",
    "state_sizes_",
]


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


def running_sizes(
    place: PlaceInfo, sizes: Mapping[str, int], groups: Iterable[UnitGroup]
) -> dict[str, int]:
    """Sizes the module that runs a place works at: of a compact module those that are left; of the
    model's own code, the native factors that units take out as they are left (one where none is)
    and the rest as they were."""
    if place.runtime:
        return dict(sizes)
    before = {**place.factors, **place.run}
    fits = {name for group in groups for name in untied(group) if name in place.native}
    return {n: max(1, sizes[n]) if n in fits else size for n, size in before.items()}


def adapt_place_(
    model: nn.Module, place: PlaceInfo, groups: Sequence[UnitGroup], selection: Selection
) -> None:
    """Adapt a sub-layer whose tensors have just been cut."""
    dense = place.factors
    sizes = place_sizes(groups, dense, selection)
    if place.runtime:
        module = install_(model, place, dense, sizes)
        if module is not None:
            module.set_kept_(kept_by_lane(groups, selection))  # type: ignore[operator]
        return
    run = running_sizes(place, sizes, groups)
    state_sizes_(model, place, run)
    before = {**dense, **place.run}
    for linear, side, axis in sides_to_fill(model, place, sizes, run):
        ran = axis.resized(before)
        kept = kept_positions(axis, groups, selection)
        running = run_positions(ran, place, groups, selection)
        where = positions_within(positions_at(linear, side), ran.size, kept, running)
        fill_(linear, side, where, int(running.sum()))


def sides_to_fill(
    model: nn.Module, place: PlaceInfo, sizes: Mapping[str, int], run: Mapping[str, int]
) -> Iterator[tuple[nn.Module, str, Axis]]:
    """Sides of linear maps that are narrower than what the model's own code runs.

    Args:
        model: the model.
        place: a sub-layer without a runtime module.
        sizes: factor sizes of its weights.
        run: factor sizes its code runs at.

    Yields:
        The map, `"output"` or `"input"`, and what the axis is made of.
    """
    for tensor in place.tensors:
        owner, _, attribute = tensor.name.rpartition(".")
        if attribute != "weight" or tensor.whole:
            continue
        linear = model.get_submodule(owner)
        axes = tensor.axes[::-1] if is_transposed(linear) else tensor.axes
        for side, axis in zip(("output", "input"), axes, strict=True):
            if axis.cuttable and axis.resized(sizes).size != axis.resized(run).size:
                yield linear, side, axis


def state_sizes_(model: nn.Module, place: PlaceInfo, run: Mapping[str, int]) -> None:
    """Set the attributes in which a module states the sizes it runs at."""
    for path, text in place.attributes.items():
        owner, _, name = f"{place.module}.{path}".rpartition(".")
        module: Any = model.get_submodule(owner.removesuffix(".config"))
        if owner.endswith(".config"):  # the code asks the config of all layers for its own size
            if not isinstance(module.config, _ConfigView):
                module.config = _ConfigView(module.config)
            module = module.config
        if hasattr(module, name):
            setattr(module, name, AxisLayout.parse(text, run).size)


class _ConfigView:
    """The config of a whole model as one layer sees it: sizes of its own, all else shared."""

    def __init__(self, config: Any) -> None:
        self._whole = config

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_whole":  # while it is copied or unpickled
            raise AttributeError(name)
        return getattr(self._whole, name)


def install_(
    model: nn.Module, place: PlaceInfo, dense: Mapping[str, int], sizes: Mapping[str, int]
) -> nn.Module | None:
    """Set attributes, and swap in the runtime module where the sizes need it.

    Args:
        model: the model; changed.
        place: a sub-layer with a runtime module.
        dense: factor sizes before the cut.
        sizes: factor sizes after it.

    Returns:
        The runtime module, or None where the family's own code runs the sizes.
    """
    module = model.get_submodule(place.module)
    foreign = any(sizes[name] != dense[name] for name in dense if name not in place.native)
    emptied = any(size == 0 for size in sizes.values())
    ours = isinstance(module, RUNTIMES[place.runtime])  # cut before
    state_sizes_(model, place, sizes)
    if not (foreign or emptied or ours):
        return None
    replacement = RUNTIMES[place.runtime].take_over(module, dense, sizes)
    parent, _, name = place.module.rpartition(".")
    setattr(model.get_submodule(parent), name, replacement)
    return replacement


def kept_by_lane(groups: Sequence[UnitGroup], selection: Selection) -> dict[str, IntArray]:
    """What is left of every factor: of a tied one, the values each surviving lane keeps, shape
    (lanes, size); of the lanes themselves, their indices."""
    selection = settled(groups, selection)
    groups = [group for group in groups if not group.is_sublayer]
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
