"""Depth and width in one order: whole sub-layers beside the units inside them."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from prunepath.allocation.allocate import allocate
from prunepath.allocation.budget import Budget, metric_value
from prunepath.allocation.latency import FRACTIONS, LatencyTable
from prunepath.allocation.steps import StepOptions, build_steps
from prunepath.errors import RequestError
from prunepath.path import SolutionPath
from prunepath.structure.cost import cost_of, unit_cost
from prunepath.structure.selection import Selection, everything
from prunepath.structure.units import Structure
from prunepath.surgery.cut import cut
from tests.conformance.families import FAMILIES, dense, random_tokens, structure_of
from tests.conformance.paths import random_path

SUBLAYERS = ("attention", "ffn")
MIXED = ("ffn_channel", "vo_coordinate", *SUBLAYERS)
TOKENS = 20
every_family = pytest.mark.parametrize("family", FAMILIES)


@cache
def mixed_path(family: str, seed: int = 0) -> SolutionPath:
    """A random path in which the first attention and the last FFN go in the midst of finer units,
    and all other sub-layers after them."""
    path = random_path(structure_of(family), seed)
    density = {
        group.name: path.damage[group.name] / unit_cost(path.structure, group).params
        for group in path.structure.groups
    }
    fine = [density[g.name] for g in path.structure.groups if g.kind in MIXED and g.num_units > 1]
    middle, highest = (fold(np.concatenate(fine)) for fold in (np.median, np.max))
    early = {path.structure.of_kind("attention")[0].name, path.structure.of_kind("ffn")[-1].name}
    damage = dict(path.damage)
    for group in path.structure.groups:
        if group.is_sublayer:
            own = middle if group.name in early else 10 * highest
            damage[group.name] = np.array([own * unit_cost(path.structure, group).params])
    return SolutionPath(
        structure=path.structure,
        damage=damage,
        entry_time=path.entry_time,
        rank=path.rank,
        provenance=path.provenance,
    )


def gone(structure: Structure, selection: Selection) -> set[str]:
    """Sub-layers that were taken out whole."""
    return {g.name for g in structure.groups if g.is_sublayer and not selection.of(g).all()}


@pytest.mark.parametrize("metric", ["params", "macs", "memory"])
@every_family
def test_depth_and_width_in_one_order(family: str, metric: str) -> None:
    path, structure = mixed_path(family), structure_of(family)
    options = StepOptions(kinds=MIXED, metric=metric, sequence_length=TOKENS, multiple=4, floor=4)
    whole = metric_value(cost_of(structure, everything(structure), TOKENS), metric, TOKENS)
    chosen, mixed = [], False
    for fraction in (0.95, 0.9, 0.8, 0.7, 0.6):
        got = allocate(path, Budget(metric=metric, fraction=fraction), options)
        assert got.reached <= got.limit == fraction * whole
        assert got.cost == cost_of(structure, got.selection, TOKENS)
        chosen.append(got.selection)
        fine = [g for g in structure.groups if not g.is_sublayer]
        narrowed = any(not got.selection.of(group).all() for group in fine)
        mixed |= bool(gone(structure, got.selection)) and narrowed
    for larger, smaller in pairwise(chosen):
        assert smaller.issubset(larger, structure)
    assert mixed, "no budget took depth and width"


@every_family
def test_counted_costs_are_those_of_the_cut_model(family: str) -> None:
    path, structure = mixed_path(family), structure_of(family)
    model = dense(family, "eager")
    tried = 0
    for fraction in (0.9, 0.75, 0.6):
        budget = Budget(metric="params", fraction=fraction)
        options = StepOptions(kinds=MIXED, sequence_length=TOKENS)
        got = allocate(path, budget, options)
        smaller = cut(model, structure, got.selection)
        assert got.cost.params == sum(p.numel() for p in smaller.parameters())
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            out = smaller(random_tokens(1, TOKENS))
        assert got.cost.macs == pytest.approx(counter.get_total_flops() / 2, rel=1e-6)
        cached = sum(
            tensor.nbytes / tensor.shape[-2]
            for layer in out.past_key_values.layers
            for tensor in (layer.keys, layer.values)
        )
        assert got.cost.kv_bytes_per_token == cached
        tried += len(gone(structure, got.selection))
    assert tried


@every_family
def test_a_sub_layer_takes_all_its_weights_and_work_along(family: str) -> None:
    structure = structure_of(family)
    model = dense(family, "eager")
    for group in structure.groups:
        if not group.is_sublayer:
            continue
        place = structure.places_by_path[group.place]
        selection = everything(structure).without([(group, np.array([0]))])
        smaller = cut(model, structure, selection)
        left = {t.name: smaller.get_parameter(t.name) for t in place.tensors}
        bias = f"{group.consumer}.bias"  # the constant that is left of it
        assert {name for name, value in left.items() if value.numel()} == {bias} & set(left)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            smaller(random_tokens(1, TOKENS))
        inside = [
            flops
            for name, counts in counter.get_flop_counts().items()
            if f".{name}.".endswith(f".{place.path}.") or f".{place.path}." in f".{name}."
            for flops in counts.values()
        ]
        assert sum(inside) == 0


def test_units_inside_a_removed_sub_layer_cost_nothing() -> None:
    structure = structure_of("llama-untied")
    for group in structure.groups:
        if not group.is_sublayer:
            continue
        without = everything(structure).without([(group, np.array([0]))])
        inside = structure.groups_by_place[group.place]
        for other in inside:
            units = np.arange(other.num_lanes) * other.lane_width
            more = without.without([(other, units)])
            assert cost_of(structure, more) == cost_of(structure, without)


def test_neither_floor_nor_multiple_holds_a_sub_layer() -> None:
    path = random_path(structure_of("llama-untied"))
    options = StepOptions(kinds=SUBLAYERS, floor=1000, multiple=1000)
    steps = build_steps(path, options)
    names = [group.name for step in steps for group, _ in step.removed]
    assert sorted(names) == sorted(g.name for g in path.structure.groups if g.is_sublayer)
    assert all(np.array_equal(units, [0]) for step in steps for _, units in step.removed)


@pytest.mark.parametrize("kind", SUBLAYERS)
def test_uniform_layers_keep_their_sub_layers(kind: str) -> None:
    path = random_path(structure_of("llama-untied"))
    options = StepOptions(layout="uniform", kinds=("ffn_channel", kind))
    message = (
        f"'uniform' keeps all layers the same size, and a layer without its {kind} is unlike the "
        f"others; leave {kind} out of --kinds, or use --layout per-layer"
    )
    with pytest.raises(RequestError, match=message):
        build_steps(path, options)


def test_what_is_gone_takes_no_time() -> None:
    structure = structure_of("llama-untied")
    rates = np.array(FRACTIONS)
    table = LatencyTable(
        fixed_seconds=1.0,
        grids={
            "self_attn": (("pair", "value"), 2 * rates[:, None] + rates),
            "mlp": (("ffn",), 5 * rates),
        },
        sequence_length=TOKENS,
        machine="none",
    )
    whole = table.seconds(structure, everything(structure))
    assert whole == pytest.approx(1 + 3 * (3 + 5))
    for kind, seconds in (("attention", 3), ("ffn", 5)):
        group = structure.of_kind(kind)[1]
        selection = everything(structure).without([(group, np.array([0]))])
        assert table.seconds(structure, selection) == pytest.approx(whole - seconds)
