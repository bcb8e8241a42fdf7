"""Exact cost of a selection: parameters, MACs, weight bytes and KV-cache bytes per token.

Everything is counted from the shapes that are left. Costs that are products of two cut axes (a
head and its coordinates) are therefore right without any correction, and the cost of one unit is
the difference between two selections.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from prunepath.structure.axes import Axis, AxisLayout, BoolArray
from prunepath.structure.selection import (
    Selection,
    everything,
    kept_positions,
    remains,
    run_positions,
    tensor_positions,
)
from prunepath.structure.tokens import TokenSchedule
from prunepath.structure.units import PlaceInfo, Structure, UnitGroup

__all__ = ["Cost", "cost_of", "place_cost", "unit_cost", "value_at"]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a model, a place or a unit costs.

    Args:
        params: parameters, tied weights counted once.
        macs: multiply-accumulates of one forward pass over one sequence.
        weight_bytes: bytes of the parameters as stored.
        kv_bytes_per_token: bytes the KV cache grows by per token of one sequence.
    """

    params: int
    macs: int
    weight_bytes: int
    kv_bytes_per_token: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            params=self.params + other.params,
            macs=self.macs + other.macs,
            weight_bytes=self.weight_bytes + other.weight_bytes,
            kv_bytes_per_token=self.kv_bytes_per_token + other.kv_bytes_per_token,
        )

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            params=self.params - other.params,
            macs=self.macs - other.macs,
            weight_bytes=self.weight_bytes - other.weight_bytes,
            kv_bytes_per_token=self.kv_bytes_per_token - other.kv_bytes_per_token,
        )

    def memory_bytes(self, tokens: int) -> int:
        """Weights plus the KV cache of one sequence of `tokens` tokens."""
        return self.weight_bytes + self.kv_bytes_per_token * tokens


def place_cost(
    structure: Structure,
    place: PlaceInfo,
    selection: Selection,
    sequence_length: int,
    tokens: TokenSchedule | None = None,
) -> Cost:
    """Cost of one sub-layer under a selection, and where tokens merge under a schedule.

    MACs are those of one sequence of `sequence_length` tokens, or of one image; attention counts
    the full square of token pairs, as fused kernels and FLOP counters do, not its causal half.
    What a router no longer sends to a place that is gone, the others of its kind get.
    """
    if not remains(structure, place, selection):
        return Cost(params=0, macs=0, weight_bytes=0, kv_bytes_per_token=0)
    groups = structure.groups_by_place[place.path]
    counts: dict[tuple[Axis | AxisLayout, bool], int] = {}

    def count(axis: Axis | AxisLayout, whole: bool, find: Callable[[], BoolArray]) -> int:
        if (axis, whole) not in counts:
            counts[axis, whole] = int(np.count_nonzero(find()))
        return counts[axis, whole]

    seen = 1.0 if tokens is None else tokens.share_seen(place)
    params = weight_bytes = 0
    macs = 0.0
    for tensor in place.tensors:
        numel = 1
        for dim, axis in enumerate(tensor.axes):
            find = partial(tensor_positions, tensor, dim, place, groups, selection)
            numel *= count(axis, tensor.whole, find)
        params += numel
        weight_bytes += numel * tensor.itemsize
        macs += numel * value_at(tensor.rows, sequence_length) * seen
    compact = bool(place.runtime)

    def running(layout: AxisLayout) -> int:
        if compact:
            return count(layout, False, partial(kept_positions, layout, groups, selection))
        find = partial(run_positions, layout, place, groups, selection)
        return count(layout, True, find)

    pairs = value_at(place.pairs, sequence_length) * seen**2
    macs += sum(running(layout) for layout in place.pair_layouts) * pairs
    # A compact module computes nothing where it was emptied, and still caches one zero, so that
    # the cache knows how long it is.
    emptied = compact and bool(place.pair_layouts) and running(place.pair_layouts[-1]) == 0
    macs = 0 if emptied else macs
    if place.routed and place.path in structure.unit_of_member:
        kept = selection.of(structure.unit_of_member[place.path][0])
        macs *= kept.size / np.count_nonzero(kept)
    cached = sum(1 if emptied else max(1, running(layout)) for layout in place.cache_layouts)
    return Cost(
        params=params,
        macs=round(macs),
        weight_bytes=weight_bytes,
        kv_bytes_per_token=cached * place.cache_itemsize,
    )


def value_at(polynomial: tuple[float, ...], tokens: int) -> float:
    """A polynomial a + b T + c T^2 at T tokens."""
    return float(sum(factor * tokens**power for power, factor in enumerate(polynomial)))


def cost_of(
    structure: Structure,
    selection: Selection,
    sequence_length: int = 512,
    *,
    tokens: TokenSchedule | None = None,
) -> Cost:
    """Cost of the whole model under a selection.

    Args:
        structure: the dense model's structure.
        selection: units kept.
        sequence_length: tokens of the sequence that `macs` is stated for.
        tokens: how many tokens every block merges away; counted are those each sub-layer sees, and
            the comparisons themselves.

    Returns:
        The cost of the model that `extract` would write.
    """
    dense = everything(structure)
    matching = 0 if tokens is None else tokens.matching_macs
    total = Cost(
        params=structure.num_params,
        macs=round(value_at(structure.fixed_macs, sequence_length)) + matching,
        weight_bytes=structure.weight_bytes,
        kv_bytes_per_token=0,
    )
    for place in structure.places:
        full = place_cost(structure, place, dense, sequence_length)
        cut = place_cost(structure, place, selection, sequence_length, tokens)
        total += Cost(
            params=cut.params - full.params,
            macs=cut.macs,
            weight_bytes=cut.weight_bytes - full.weight_bytes,
            kv_bytes_per_token=cut.kv_bytes_per_token,
        )
    return total


def unit_cost(structure: Structure, group: UnitGroup, sequence_length: int = 512) -> Cost:
    """Cost of one unit of a group in the dense model (what removing it alone saves)."""
    dense = Selection({})
    one = dense.without([(group, np.array([0]))])
    paths = (path for path in (group.place, *group.members) if path in structure.places_by_path)
    changed = (structure.places_by_path[path] for path in paths)
    return sum(
        (
            place_cost(structure, place, dense, sequence_length)
            - place_cost(structure, place, one, sequence_length)
            for place in changed
        ),
        start=Cost(params=0, macs=0, weight_bytes=0, kv_bytes_per_token=0),
    )
