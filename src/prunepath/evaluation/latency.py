"""Measure the latency table that latency budgets are met with."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

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
from prunepath.files import atomic_write
from prunepath.progress import Progress, note
from prunepath.structure.discover import discover
from prunepath.structure.selection import Selection
from prunepath.structure.units import PlaceInfo, Structure
from prunepath.surgery.cut import cut

__all__ = ["forward_seconds", "latency_table"]

_REPEATS = 5


def latency_table(
    model: Any, sequence_length: int, *, progress: Progress | None = None
) -> LatencyTable:
    """The table of a model's config on this machine, from the cache or measured now.

    Args:
        model: the dense model.
        sequence_length: tokens of the timed sequence, batch 1.
        progress: who listens.

    Returns:
        Seconds of every sub-layer over a grid of widths.
    """
    file = cache_file(model.config, sequence_length, str(model.dtype), torch.get_num_threads())
    if file.is_file():
        return LatencyTable.from_json(file.read_text())
    note(progress, f"measuring latency at {sequence_length} tokens, once for this machine")
    config = type(model.config).from_dict({**model.config.to_dict(), "num_hidden_layers": 1})
    one = type(model)(config).to(model.device, model.dtype).eval()
    structure = discover(one)
    grids = {}
    for place in structure.places:
        factors = grid_factors(structure, place)

        def seconds_at(fractions: dict[str, float], place: PlaceInfo = place) -> float:
            smaller = cut(one, structure, _shrunk(structure, place, fractions))
            return _module_seconds(smaller, place.path, sequence_length)

        grids[place.path.rpartition(".")[2]] = (factors, build_grid(factors, seconds_at))
    layers = discover(model).num_layers
    per_layer = sum(float(grid.max()) for _, grid in grids.values())
    fixed = max(0.0, forward_seconds(model, sequence_length) - layers * per_layer)
    table = LatencyTable(
        fixed_seconds=fixed,
        grids=grids,
        sequence_length=sequence_length,
        machine=machine_name(),
    )
    with atomic_write(file) as beside:
        beside.write_text(table.to_json())
    return table


@torch.no_grad()
def forward_seconds(model: Any, sequence_length: int) -> float:
    """Median seconds of one forward pass over one sequence, batch 1."""
    ids = _ids(model, sequence_length)
    return median_seconds(lambda: _run(model, ids), _REPEATS)


def _run(model: Any, ids: torch.Tensor) -> None:
    model(input_ids=ids, use_cache=False)
    if ids.is_cuda:
        torch.cuda.synchronize()


def _ids(model: Any, sequence_length: int) -> torch.Tensor:
    ids = torch.arange(sequence_length) % int(model.config.vocab_size)
    return ids.unsqueeze(0).to(next(model.parameters()).device)


def _shrunk(structure: Structure, place: PlaceInfo, fractions: dict[str, float]) -> Selection:
    """A selection that keeps the first units of every lane of one place."""
    keep = {}
    for group in structure.groups_by_place[place.path]:
        (name,) = (name for name in group.unit.names if name != group.tied)
        if name in fractions:
            lane = np.arange(group.lane_width) < max(1, round(fractions[name] * group.lane_width))
            keep[group.name] = np.tile(lane, group.num_lanes)
    return Selection(keep)


@torch.no_grad()
def _module_seconds(model: Any, path: str, sequence_length: int) -> float:
    """Median seconds inside one module during forward passes."""
    ids = _ids(model, sequence_length)
    module = model.get_submodule(path)
    times: list[float] = []
    start = 0.0

    def before(*_: Any) -> None:
        nonlocal start
        start = time.perf_counter()

    def after(*_: Any) -> None:
        if ids.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)

    body = getattr(model, getattr(model, "base_model_prefix", ""), model)
    with ExitStack() as stack:
        stack.callback(module.register_forward_pre_hook(before).remove)
        stack.callback(module.register_forward_hook(after).remove)
        for _ in range(_REPEATS + 1):
            body(input_ids=ids, use_cache=False)
    return float(np.median(times[1:]))
