"""Latency from a measured table of this machine, cached.

A one-layer model of the same config is timed, sub-layer by sub-layer, at a grid of widths. The
latency of a selection is what the dense model takes beyond its sub-layers plus the interpolated
times of all of them; times are made non-decreasing in every width, so that removing a unit never
looks slower and a budget can be found by bisection.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunepath.structure.selection import Selection, place_sizes
from prunepath.structure.tokens import TokenSchedule
from prunepath.structure.units import PlaceInfo, Structure

__all__ = [
    "FRACTIONS",
    "LatencyTable",
    "TokenPace",
    "build_grid",
    "cache_file",
    "grid_factors",
    "machine_name",
    "median_seconds",
    "width_factors",
]

FRACTIONS = (0.125, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Measured seconds of sub-layers by width.

    Args:
        fixed_seconds: one forward pass without its sub-layers.
        grids: module name of a place -> (factors, seconds at FRACTIONS of each factor).
        sequence_length: tokens of the timed sequence.
        machine: what it was measured on.
    """

    fixed_seconds: float
    grids: Mapping[str, tuple[tuple[str, ...], NDArray[np.float64]]]
    sequence_length: int
    machine: str

    def seconds(
        self,
        structure: Structure,
        selection: Selection,
        tokens: TokenSchedule | None = None,
        pace: TokenPace | None = None,
    ) -> float:
        """Predicted seconds of one forward pass over one sequence; where tokens merge, with the
        schedule and what fewer tokens save on this machine."""
        total = self.fixed_seconds
        for place in structure.places:
            name = place.path.rpartition(".")[2]
            factors, grid = self.grids[name]
            fractions = _fractions(structure, place, selection)
            seconds = _interpolate(grid, [fractions[name] for name in factors])
            for factor in width_factors(structure, place):
                if factor not in factors:  # whole heads: work in proportion to their number
                    seconds *= fractions[factor]
            if tokens is not None and pace is not None:
                seconds *= pace.part(name, tokens.share_seen(place))
            total += seconds
        if tokens is not None and pace is not None:
            total += pace.merge_seconds * sum(count > 0 for count in tokens.dropped)
        return total

    def to_json(self) -> str:
        """JSON text; `from_json` reads it back."""
        grids = {
            name: [list(factors), grid.tolist()] for name, (factors, grid) in self.grids.items()
        }
        return json.dumps({**vars(self), "grids": grids})

    @classmethod
    def from_json(cls, text: str) -> LatencyTable:
        """Read `to_json`'s text."""
        data = json.loads(text)
        grids = {k: (tuple(f), np.array(grid)) for k, (f, grid) in data.pop("grids").items()}
        return cls(grids=grids, **data)


@dataclass(frozen=True, kw_only=True)
class TokenPace:
    """What fewer tokens save, measured.

    Args:
        curves: module name of a place -> its seconds at FRACTIONS of the tokens, relative to all.
        merge_seconds: comparing and merging the tokens of one block.
    """

    curves: Mapping[str, NDArray[np.float64]]
    merge_seconds: float

    def part(self, name: str, share: float) -> float:
        """Seconds of a sub-layer that sees a share of the tokens, relative to all of them."""
        return _interpolate(self.curves[name], [share])


def cache_file(config: Any, sequence_length: int, dtype: str, threads: int) -> Path:
    """Where the table of this config on this machine is kept."""
    root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "prunepath" / "latency"
    described = {k: v for k, v in config.to_dict().items() if k not in {"transformers_version"}}
    key = json.dumps([described, sequence_length, dtype, threads, machine_name()], default=str)
    return root / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def machine_name() -> str:
    """Processor and architecture, in words."""
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def width_factors(structure: Structure, place: PlaceInfo) -> tuple[str, ...]:
    """Factors of a place that units are taken from, in group order."""
    own = (
        name
        for group in structure.groups_by_place[place.path]
        for name in group.unit.names
        if name != group.tied
    )
    return tuple(dict.fromkeys(own))


def grid_factors(structure: Structure, place: PlaceInfo) -> tuple[str, ...]:
    """Factors whose widths are timed: those that change the shape of the work, not only how many
    equal heads there are."""
    factors = width_factors(structure, place)
    return tuple(name for name in factors if name not in place.native) or factors


def build_grid(
    factors: tuple[str, ...], seconds_at: Callable[[dict[str, float]], float]
) -> NDArray[np.float64]:
    """Seconds at every combination of FRACTIONS, non-decreasing along every axis."""
    shape = (len(FRACTIONS),) * len(factors)
    grid = np.zeros(shape)
    for place, combination in zip(
        np.ndindex(shape), product(FRACTIONS, repeat=len(factors)), strict=True
    ):
        grid[place] = seconds_at(dict(zip(factors, combination, strict=True)))
    for axis in range(grid.ndim):
        grid = np.maximum.accumulate(grid, axis=axis)
    return grid


def median_seconds(run: Callable[[], object], repeats: int = 5) -> float:
    """Median wall time of a call, after one that is not counted."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _fractions(structure: Structure, place: PlaceInfo, selection: Selection) -> dict[str, float]:
    dense = place.factors
    sizes = place_sizes(structure.groups_by_place[place.path], dense, selection)
    return {name: sizes[name] / dense[name] for name in dense}


def _interpolate(grid: NDArray[np.float64], fractions: list[float]) -> float:
    """Multilinear, and proportional to the width below the smallest measured fraction."""
    for fraction in reversed(fractions):  # the last axis of the grid goes first
        flat = grid.reshape(-1, len(FRACTIONS))
        inside = np.array([np.interp(fraction, FRACTIONS, row) for row in flat])
        if fraction < FRACTIONS[0]:
            inside = flat[:, 0] * fraction / FRACTIONS[0]
        grid = inside.reshape(grid.shape[:-1])
    return float(grid)
