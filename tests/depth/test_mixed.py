"""Depth and width in one order by the default method: decoder, encoder and vision model."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch

from prunepath.allocation.allocate import allocate
from prunepath.allocation.budget import Budget
from prunepath.allocation.steps import StepOptions
from prunepath.methods.method import SearchContext, total_order
from prunepath.methods.spp import Spp
from prunepath.path import SolutionPath
from prunepath.statistics.collect import recording
from prunepath.statistics.sums import Statistics
from prunepath.structure.cost import cost_of, unit_cost
from prunepath.structure.gates import frozen, gated, gates_of
from prunepath.structure.selection import everything, is_gone
from prunepath.surgery.cut import cut
from tests.conformance.paths import PROVENANCE
from tests.optin.scenes import context as scene_context
from tests.search.problems import EVERYTHING
from tests.zoo.build import furthest

SUBLAYERS = ("attention", "ffn")
FINE = ("ffn_channel", "qk_coordinate", "vo_coordinate")
MIXED = (*FINE, *SUBLAYERS)
every_model = pytest.mark.parametrize("name", ["llama", "bert", "vit"])


@cache
def context(name: str) -> SearchContext:
    """Statistics with gradients, as `search` collects them for `spp`."""
    found = scene_context(name)
    model, task, sums = found.model, found.task, Statistics()
    recorded = recording(
        model, found.structure, EVERYTHING, sums, per_sample=task.loss_rows == "sample"
    )
    with torch.enable_grad(), frozen(model), recorded as recorder:
        for index, batch in enumerate(found.samples.batches(1)):
            generator = torch.Generator().manual_seed(index)
            recorder.begin(batch)
            answer = task.output(model, batch.inputs)
            answer.backward(task.draw(answer, batch, "kl", generator))
    return replace(found, statistics=sums)


@cache
def path(name: str, *, cheap: bool = False) -> SolutionPath:
    """The path of `spp`; `cheap` lowers the damage of an FFN and an attention to what the cheapest
    tenth of the finer units does, so that depth and width meet early."""
    found = context(name)
    ranked = total_order(found.structure, Spp().rank(found))
    if cheap:
        damage = dict(ranked["damage"])
        density = {
            group.name: damage[group.name] / unit_cost(found.structure, group).params
            for group in found.structure.groups
        }
        fine = [density[group.name] for group in found.structure.groups if group.kind in FINE]
        early = float(np.quantile(np.concatenate(fine), 0.1))
        for group in found.structure.groups:
            if group.is_sublayer and group.layer == (0 if group.kind == "ffn" else 1):
                damage[group.name] = np.array([early * unit_cost(found.structure, group).params])
        ranked = {**ranked, "damage": damage}
    return SolutionPath(structure=found.structure, **ranked, provenance=PROVENANCE)


@every_model
@pytest.mark.parametrize("metric", ["params", "macs", "memory"])
@pytest.mark.parametrize("cheap", [False, True], ids=["as scored", "sub-layers early"])
def test_budgets_hold_and_nest(name: str, metric: str, cheap: bool) -> None:
    found = path(name, cheap=cheap)
    options = StepOptions(kinds=MIXED, multiple=4, floor=4, sequence_length=9)
    chosen, whole, narrowed = [], 0, 0
    for fraction in (0.9, 0.75, 0.6):
        got = allocate(found, Budget(metric=metric, fraction=fraction), options)
        assert got.reached <= got.limit
        assert got.cost == cost_of(found.structure, got.selection, 9)
        chosen.append(got.selection)
        for place in found.structure.places:
            groups = found.structure.groups_by_place[place.path]
            if is_gone(groups, got.selection):
                whole += 1
            elif any(not got.selection.of(group).all() for group in groups):
                narrowed += 1
    for larger, smaller in pairwise(chosen):
        assert smaller.issubset(larger, found.structure)
    assert narrowed
    assert whole or not cheap


@every_model
def test_a_sub_layer_that_leaves_takes_its_finer_units_along(name: str) -> None:
    found = path(name, cheap=True)
    structure, model = found.structure, context(name).model
    options = StepOptions(kinds=MIXED, multiple=4, floor=4)
    got = allocate(found, Budget(metric="params", fraction=0.75), options)
    gone = [
        place
        for place in structure.places
        if is_gone(structure.groups_by_place[place.path], got.selection)
    ]
    assert gone
    smaller = cut(model, structure, got.selection)
    assert got.cost.params == sum(parameter.numel() for parameter in smaller.parameters())
    for place in gone:
        inside = structure.groups_by_place[place.path]
        left = {t.name: smaller.get_parameter(t.name).numel() for t in place.tensors}
        biases = {f"{group.consumer}.bias" for group in inside}
        assert {name for name, size in left.items() if size} <= biases
        for group in inside:  # kept or not, its units cost nothing any more
            none = got.selection.without([(group, np.arange(group.num_units))])
            assert cost_of(structure, none) == got.cost
    dense = everything(structure)
    (sublayer,) = [g for g in structure.groups_by_place[gone[0].path] if g.is_sublayer]
    alone = cost_of(structure, dense.without([(sublayer, np.array([0]))]))
    saved = cost_of(structure, dense).params - alone.params
    assert saved == unit_cost(structure, sublayer).params


@every_model
def test_gated_equals_cut(name: str) -> None:
    found, there = path(name, cheap=True), context(name)
    options = StepOptions(kinds=MIXED, multiple=4, floor=4)
    inputs = there.samples.inputs
    for fraction in (0.85, 0.6):
        got = allocate(found, Budget(metric="params", fraction=fraction), options)
        smaller = cut(there.model, found.structure, got.selection)
        gates = gates_of(got.selection, found.structure)
        with torch.no_grad(), frozen(there.model):
            with gated(there.model, found.structure, gates):
                expected = there.model(**inputs)
            answer = smaller.eval()(**inputs)
        assert furthest(answer, expected, inputs.get("attention_mask")) <= 1e-5


@every_model
def test_more_kinds_never_do_more_damage_by_their_own_account(name: str) -> None:
    found = path(name)
    budget = Budget(metric="params", fraction=0.75)
    kept = {
        kinds: allocate(found, budget, StepOptions(kinds=kinds, multiple=4, floor=4)).selection
        for kinds in (FINE, MIXED)
    }
    damages = {
        kinds: sum(
            float(found.damage[group.name][~selection.of(group)].sum())
            for group in found.structure.groups
            if group.kind in kinds
            and (
                group.is_sublayer
                or not is_gone(found.structure.groups_by_place[group.place], selection)
            )
        )
        for kinds, selection in kept.items()
    }
    # A sub-layer is a large step, so the budget may be met by a little more than needed.
    largest = max(
        float(found.damage[g.name].sum()) for g in found.structure.groups if g.is_sublayer
    )
    assert damages[MIXED] <= damages[FINE] + largest
