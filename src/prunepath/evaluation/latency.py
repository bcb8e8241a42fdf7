"""Measure the latency table that latency budgets are met with.

A model of one layer stands for all layers, so this is for models whose layers are alike.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prunepath.allocation.latency import (
    LatencyTable,
    build_grid,
    cache_file,
    grid_factors,
    machine_name,
    median_seconds,
)
from prunepath.errors import RequestError
from prunepath.files import atomic_write
from prunepath.progress import Progress, note
from prunepath.structure.discover import discover
from prunepath.structure.selection import Selection
from prunepath.structure.units import PlaceInfo, Structure
from prunepath.surgery.cut import cut

if TYPE_CHECKING:
    from torch import Tensor

    from prunepath.tasks.task import Task

__all__ = ["forward_seconds", "latency_table"]

_REPEATS = 5


def latency_table(
    model: Any, task: Task, sequence_length: int, *, progress: Progress | None = None
) -> LatencyTable:
    """The table of a model's config on this machine, from the cache or measured now.

    Args:
        model: the dense model.
        task: makes the sample that is timed.
        sequence_length: tokens of that sample where it is text, batch 1.
        progress: who listens.

    Returns:
        Seconds of every sub-layer over a grid of widths.

    Raises:
        RequestError: the model's layers are not alike.
    """
    whole = discover(model)
    _require_alike(model, whole)
    file = cache_file(model.config, sequence_length, str(model.dtype), torch.get_num_threads())
    if file.is_file():
        return LatencyTable.from_json(file.read_text())
    note(progress, f"measuring latency at {sequence_length} tokens, once for this machine")
    one = _one_layer(model)
    structure = discover(one)
    grids = {}
    for place in structure.places:
        factors = grid_factors(structure, place)

        def seconds_at(fractions: dict[str, float], place: PlaceInfo = place) -> float:
            smaller = cut(one, structure, _shrunk(structure, place, fractions))
            return _module_seconds(smaller, task, place.module, sequence_length)

        grids[_sort(place)] = (factors, build_grid(factors, seconds_at))
    per_layer = sum(float(grid.max()) for _, grid in grids.values())
    seconds = forward_seconds(model, task, sequence_length)
    table = LatencyTable(
        fixed_seconds=max(0.0, seconds - whole.num_layers * per_layer),
        grids=grids,
        sequence_length=sequence_length,
        machine=machine_name(),
    )
    with atomic_write(file) as beside:
        beside.write_text(table.to_json())
    return table


def _require_alike(model: Any, structure: Structure) -> None:
    if any(place.routed for place in structure.places):
        raise RequestError(
            f"a latency budget was asked for, and in a '{model.config.model_type}' model a router "
            "decides what runs, so that time depends on the text; use --macs or --params"
        )
    shapes: dict[str, set[tuple[tuple[str, int], ...]]] = {}
    for place in structure.places:
        shapes.setdefault(_sort(place), set()).add(tuple(sorted(place.factors.items())))
    one_shape = all(len(found) == 1 for found in shapes.values())
    counted = getattr(model.config, "num_hidden_layers", None) == structure.num_layers
    if len(structure.stacks) != 1 or not one_shape or not counted:
        raise RequestError(
            f"a latency budget was asked for, and a '{model.config.model_type}' model has layers "
            "of several kinds, which one layer cannot stand for; use --macs or --params"
        )


def _sort(place: PlaceInfo) -> str:
    """What a place is called in the table: the same in every layer."""
    return place.path.rpartition(".")[2]


def _one_layer(model: Any) -> Any:
    """A random model of the same config with one layer."""
    layers = model.config.num_hidden_layers
    config = {  # what is listed layer by layer is shortened, too
        key: value[:1] if isinstance(value, list) and len(value) == layers else value
        for key, value in model.config.to_dict().items()
    }
    one = type(model)(type(model.config).from_dict({**config, "num_hidden_layers": 1}))
    return one.to(model.device, model.dtype).eval()


@torch.no_grad()
def forward_seconds(model: Any, task: Task, sequence_length: int) -> float:
    """Median seconds of one forward pass over one sample, batch 1."""
    inputs = _inputs(model, task, sequence_length)
    return median_seconds(lambda: _run(model, task, inputs), _REPEATS)


def _run(model: Any, task: Task, inputs: dict[str, Tensor]) -> None:
    task.output(model, inputs)
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def _inputs(model: Any, task: Task, sequence_length: int) -> dict[str, Tensor]:
    return task.dummy(model, 1, window=sequence_length).to(model.device)


def _shrunk(structure: Structure, place: PlaceInfo, fractions: dict[str, float]) -> Selection:
    """A selection that keeps the first units of every lane of one place."""
    keep = {}
    for group in structure.groups_by_place[place.path]:
        if group.is_sublayer:
            continue
        (name,) = (name for name in group.unit.names if name != group.tied)
        if name in fractions:
            lane = np.arange(group.lane_width) < max(1, round(fractions[name] * group.lane_width))
            keep[group.name] = np.tile(lane, group.num_lanes)
    return Selection(keep)


@torch.no_grad()
def _module_seconds(model: Any, task: Task, path: str, sequence_length: int) -> float:
    """Median seconds inside one module during forward passes."""
    inputs = _inputs(model, task, sequence_length)
    module = model.get_submodule(path)
    times: list[float] = []
    start = 0.0

    def before(*_: Any) -> None:
        nonlocal start
        start = time.perf_counter()

    def after(*_: Any) -> None:
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)

    with ExitStack() as stack:
        stack.callback(module.register_forward_pre_hook(before).remove)
        stack.callback(module.register_forward_hook(after).remove)
        for _ in range(_REPEATS + 1):
            task.body(model, inputs)
    return float(np.median(times[1:]))
