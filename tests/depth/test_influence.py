"""`block-influence`: layers leave whole, sub-layers alone; what has no order is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from prunepath.allocation.allocate import allocate
from prunepath.allocation.budget import Budget
from prunepath.allocation.steps import StepOptions, build_steps
from prunepath.errors import RequestError
from prunepath.methods.depth.influence import BlockInfluenceConfig
from prunepath.methods.scope import scored_part
from prunepath.statistics.influence import mean_distances
from prunepath.statistics.sums import Statistics
from prunepath.structure.cost import cost_of
from prunepath.structure.selection import Selection
from prunepath.structure.units import LeftAlone, Structure
from prunepath.surgery.cut import cut
from tests.conformance.families import dense, random_tokens, tiny
from tests.depth.problems import context, made, path_of, scored
from tests.search.problems import context_of

MODELS = ("llama", "bert", "vit", "t5", "swin", "gpt2", "clip")
every_model = pytest.mark.parametrize("name", MODELS)


def gone(structure: Structure, selection: Selection) -> dict[str, set[str]]:
    """Layers that lost a sub-layer -> the places they lost."""
    found: dict[str, set[str]] = {}
    for group in structure.groups:
        if not selection.of(group).all():
            layer = structure.places_by_path[group.place].layer_path
            found.setdefault(layer, set()).add(group.place)
    return found


@every_model
@pytest.mark.parametrize("blocks", [False, True])
def test_layers_leave_whole_under_every_budget(name: str, blocks: bool) -> None:
    found = context(name)
    path = path_of(found, made("block-influence", blocks=blocks, distance="angular"))
    structure = path.structure
    layers: dict[str, set[str]] = {}
    for place in structure.places:
        layers.setdefault(place.layer_path, set()).add(place.path)
    chosen = []
    for fraction in (0.9, 0.8, 0.6, 0.45):
        got = allocate(path, Budget(metric="params", fraction=fraction))
        assert got.reached <= got.limit
        for layer, places in gone(structure, got.selection).items():
            assert places == layers[layer], "part of a layer stayed"
        smaller = cut(found.model, structure, got.selection)
        assert got.cost.params == sum(p.numel() for p in smaller.parameters())
        assert got.cost == cost_of(structure, got.selection)
        chosen.append(got.selection)
    for larger, smaller in pairwise(chosen):
        assert smaller.issubset(larger, structure)
    assert gone(structure, chosen[-1])


@every_model
def test_the_layers_that_turn_least_leave_first(name: str) -> None:
    found = context(name)
    path = path_of(found, made("block-influence"))
    steps = build_steps(path, StepOptions())
    layers = [path.structure.places_by_path[s.removed[0][0].place].layer_path for s in steps]
    turns = [float(mean_distances(found.statistics.influence[layer], "cosine")) for layer in layers]
    assert turns == sorted(turns)
    assert len(layers) == len(set(layers))


def test_one_kind_of_sub_layer_may_leave_by_the_influence_of_its_layer() -> None:
    path = path_of(context("llama"), made("block-influence"))
    steps = build_steps(path, StepOptions(kinds=("attention",)))
    assert {group.kind for step in steps for group, _ in step.removed} == {"attention"}
    assert all(len(step.removed) == 1 for step in steps)
    whole = build_steps(path, StepOptions())
    assert [s.removed[0][0].layer for s in steps] == [s.removed[0][0].layer for s in whole]


@every_model
@pytest.mark.parametrize("distance", ["cosine", "angular"])
def test_sub_layers_leave_alone(name: str, distance: str) -> None:
    found = context(name)
    path = path_of(found, made("block-influence", unit="sublayer", distance=distance))
    steps = build_steps(path, StepOptions())
    assert all(len(step.removed) == 1 for step in steps)
    places = [step.removed[0][0].place for step in steps]
    sums = found.statistics.influence
    turns = [float(mean_distances(sums[place], distance)) for place in places]
    np.testing.assert_allclose(turns, sorted(turns), rtol=1e-6)


def test_blocks_lie_side_by_side_in_every_stack() -> None:
    method = made("block-influence", blocks=True, distance="angular", block_layers=2)
    found = context_of(tiny("Llama", num_hidden_layers=6), random_tokens(3, 20))
    path = path_of(found, method)
    (told,) = path.provenance.extra["blocks"].values()
    assert sorted(told["order"]) == list(range(6))
    first = told["closest"]["2"]
    assert set(told["order"][:2]) == {first, first + 1}
    steps = build_steps(path, StepOptions())
    assert [step.removed[0][0].layer for step in steps] == told["order"]


def test_stages_of_other_widths_are_blocks_of_their_own() -> None:
    found = context("swin")
    path = path_of(found, made("block-influence", blocks=True))
    runs = [told["order"] for told in path.provenance.extra["blocks"].values()]
    assert len(runs) > 1
    widths = {
        path.structure.places_by_path[group.place].layer: found.model.get_submodule(
            group.consumer
        ).out_features
        for group in path.structure.groups
    }
    for run in runs:
        assert len({widths[layer] for layer in run}) == 1


def test_a_layer_with_experts_cannot_leave_whole() -> None:
    found = context("mixtral")
    with pytest.raises(RequestError, match="those of layers that can leave whole, and this model"):
        scored_part(found.structure, made("block-influence"))
    path = path_of(found, made("block-influence", unit="sublayer"))
    assert {group.kind for group in path.structure.groups} == {"attention"}


def test_a_layer_whose_other_half_did_not_prove_exact_stays() -> None:
    found = context("llama")
    groups = tuple(g for g in found.structure.groups if g.name != "layers.0.ffn")
    places = tuple(p for p in found.structure.places if p.path != "model.layers.0.mlp")
    groups = tuple(g for g in groups if g.place != "model.layers.0.mlp")
    left = LeftAlone(module="layers.0.ffn", params=0, reason="differs")
    structure = replace(found.structure, groups=groups, places=places, left_alone=(left,))
    kept = scored_part(structure, made("block-influence"))
    assert "layers.0.attention" not in {group.name for group in kept.groups}
    assert kept.groups
    assert "model.layers.0.self_attn#attention" in {item.module for item in kept.left_alone}


@pytest.mark.parametrize("method", ["block-influence", "finercut"])
def test_a_model_without_sub_layers_is_refused(method: str) -> None:
    found = context("llama")
    groups = tuple(group for group in found.structure.groups if not group.is_sublayer)
    with pytest.raises(RequestError, match="scores whole sub-layers.* use another method"):
        scored_part(replace(found.structure, groups=groups), made(method))


@pytest.mark.parametrize("settings", [{}, {"blocks": True}, {"unit": "sublayer"}])
def test_a_model_of_one_layer_has_an_order_too(settings: dict[str, Any]) -> None:
    found = context_of(tiny("Llama", num_hidden_layers=1), random_tokens(2, 10))
    path = path_of(found, made("block-influence", **settings))
    steps = build_steps(path, StepOptions())
    assert sum(len(step.removed) for step in steps) == 2


def test_statistics_that_lack_it_are_refused() -> None:
    found = replace(scored(context("llama"), made("block-influence")), statistics=Statistics())
    with pytest.raises(RequestError, match=r"nothing was measured of the layer 'model\.layers\.0'"):
        made("block-influence").rank(found)
    with pytest.raises(RequestError, match="no distances between the layers of 'model.layers'"):
        made("block-influence", blocks=True).rank(found)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"unit": "head"}, "unknown unit 'head' .* use layer or sublayer"),
        ({"distance": "l2"}, "unknown distance 'l2' .* use cosine or angular"),
        ({"unit": "sublayer", "blocks": True}, "blocks are runs of layers, and the unit is"),
        ({"blocks": True, "block_layers": -1}, "block_layers is -1; give a number of layers"),
        ({"block_layers": 3}, "layers leave one by one; set blocks=true, too"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(RequestError, match=match):
        BlockInfluenceConfig(**settings)


def test_it_reads_no_labels() -> None:
    with pytest.raises(RequestError, match="reads no labels"):
        made("block-influence").require_objective("task")


def test_the_dense_model_is_not_changed() -> None:
    model = dense("llama-untied")
    assert all("forward" not in vars(module) for module in model.modules())
