"""Rows, pairs and fixed work of a model, from a measurement on a few forward passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from prunepath.structure.cost import value_at
from prunepath.structure.measure import LENGTHS, Measured, Probe, measure, polynomial
from prunepath.structure.units import PlaceInfo

__all__ = ["count_places"]


def count_places(
    model: nn.Module, places: Sequence[tuple[PlaceInfo, str]], probe: Probe
) -> tuple[list[PlaceInfo], tuple[float, float, float]]:
    """Places with measured rows and pairs, and the MACs outside them as a + b T + c T^2.

    Args:
        model: the model.
        places: each with the name, inside it, of the linear map that sees the tokens attended to;
            its first linear map sees those that attend.
        probe: runs the model on one sample.
    """
    linears = {
        tensor.name.rpartition(".")[0]
        for place, _ in places
        for tensor in place.tensors
        if tensor.rows != (0.0, 0.0)
    }
    attention = {place.module for place, _ in places if place.pair_layouts}
    found = measure(model, sorted(linears), probe, sorted(attention))
    _share_rows_(found, [place for place, _ in places if place.routed])
    counted = [_with_counts(place, keys, found) for place, keys in places]
    fixed = [
        total - sum(value_at(place.dense_macs, length) for place in counted)
        for total, length in zip(found.macs, LENGTHS, strict=True)
    ]
    return counted, polynomial(fixed)


def _share_rows_(found: Measured, places: Sequence[PlaceInfo]) -> None:
    """Give each of the modules a router chooses from the mean of their rows: how many a few random
    tokens sent to one of them is chance, how many they sent to all is not."""
    alike: dict[tuple[str, str], list[str]] = {}
    for place in places:
        parent = place.module.rpartition(".")[0]
        for tensor in place.tensors:
            linear = tensor.name.rpartition(".")[0]
            own = alike.setdefault((parent, linear.removeprefix(place.module)), [])
            own.append(linear)
    nothing = [0.0] * len(LENGTHS)
    for names in alike.values():
        rows = [found.rows.get(name, nothing) for name in names]
        mean = [sum(counts) / len(names) for counts in zip(*rows, strict=True)]
        found.rows.update(dict.fromkeys(names, mean))


def _with_counts(place: PlaceInfo, keys: str, found: Measured) -> PlaceInfo:
    tensors = tuple(
        replace(tensor, rows=found.rows_of(tensor.name.rpartition(".")[0]))
        if tensor.rows != (0.0, 0.0)
        else tensor
        for tensor in place.tensors
    )
    pairs = place.pairs
    if place.pair_layouts:
        queries = tensors[0].name.rpartition(".")[0]
        others = f"{place.module}.{keys}" if keys else queries
        pairs = found.pairs_of(queries, others)
        linears = {tensor.name.rpartition(".")[0] for tensor in place.tensors}
        products = found.products_of(place.module, linears)
        width = sum(layout.size for layout in place.pair_layouts)
        if any(products) and width:  # else the products are out of the sub-layer's own code
            pairs = polynomial([total / width for total in products])
    return replace(place, tensors=tensors, pairs=pairs)
