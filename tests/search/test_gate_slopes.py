"""Gates that are closed have slopes, too: what is read off activations is what autograd says."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from prunepath.errors import NumericsError
from prunepath.methods.method import SearchContext
from prunepath.statistics.collect import checkpointed_layers, reading_gates
from prunepath.statistics.gate_rows import gate_rows
from prunepath.statistics.gate_slopes import gate_slopes
from prunepath.statistics.gated_model import GatedModel
from prunepath.structure.gates import frozen, gated, gates_of
from prunepath.structure.selection import Selection
from prunepath.structure.units import UnitGroup
from prunepath.surgery.cut import cut
from prunepath.tasks.causal_lm import CAUSAL_LM
from tests.conformance.families import random_tokens, tiny
from tests.search.problems import context_of


@cache
def context() -> SearchContext:
    return context_of(tiny("Llama", num_key_value_heads=2).double(), random_tokens(4, 12))


def chosen(*kinds: str) -> Selection:
    """Every third unit of a lane closed."""
    keep = {}
    for kind in kinds:
        for group in context().structure.of_kind(kind):
            keep[group.name] = np.arange(group.num_units) % group.lane_width % 3 != 0
    return Selection(keep)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize(
    "kinds",
    [("ffn_channel", "qk_coordinate", "vo_coordinate"), ("query_head", "vo_coordinate")],
    ids=["one group a site", "two groups of one site"],
)
def test_gradients_of_closed_gates_are_those_of_autograd(
    kinds: tuple[str, ...], checkpointed: bool
) -> None:
    here = context()
    gates = gates_of(chosen(*kinds), here.structure)
    leaves = {name: gate.double().requires_grad_() for name, gate in gates.items()}
    with frozen(here.model), gated(here.model, here.structure, leaves):
        loss = CAUSAL_LM.output(here.model, here.samples.inputs).square().mean()
        expected = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    found: dict[str, Tensor] = {}

    def take(group: UnitGroup, units: Tensor) -> None:
        found[group.name] = units.reshape(-1, group.num_units).double().sum(0)

    groups = [here.structure.groups_by_name[name] for name in gates]
    reading = reading_gates(here.model, groups, take, Tensor.double, gates)
    with frozen(here.model), reading:
        if checkpointed:
            with checkpointed_layers(here.model, here.structure):
                again = CAUSAL_LM.output(here.model, here.samples.inputs).square().mean()
                again.backward()
        else:
            again = CAUSAL_LM.output(here.model, here.samples.inputs).square().mean()
            again.backward()
    assert again.item() == pytest.approx(loss.item(), rel=1e-12)
    assert found.keys() == expected.keys()
    for name, slope in expected.items():
        torch.testing.assert_close(found[name], slope, rtol=1e-6, atol=1e-12)
        closed = gates[name] == 0
        assert float(slope[closed].abs().max()) > 0


def test_the_distance_is_that_of_the_cut_model() -> None:
    here, selection = context(), chosen("ffn_channel", "vo_coordinate")
    gates = gates_of(selection, here.structure)
    groups = [here.structure.groups_by_name[name] for name in gates]
    args = (here.model, here.structure, here.task, here.samples)
    distance, slopes = gate_slopes(*args, groups, gates)
    assert distance == pytest.approx(GatedModel(*args).distance(selection))
    with torch.no_grad():
        dense = here.task.output(here.model, here.samples.inputs)
        own = here.task.output(cut(here.model, here.structure, selection), here.samples.inputs)
    assert distance == pytest.approx(float(here.task.distance(own, dense, here.samples)), rel=1e-5)
    name = groups[0].name
    opened = {**gates, name: gates[name].clone()}
    opened[name][0] = 1e-3
    change = (gate_slopes(*args, groups, opened)[0] - distance) / 1e-3
    assert change == pytest.approx(float(slopes[name][0]), rel=0.02)


def test_the_dense_model_has_no_slope_and_no_distance() -> None:
    here = context()
    groups = here.structure.finest_groups
    args = (here.model, here.structure, here.task, here.samples)
    distance, slopes = gate_slopes(*args, groups, {})
    assert abs(distance) < 1e-9
    assert max(float(slope.abs().max()) for slope in slopes.values()) < 1e-6


def test_rows_at_closed_gates_are_other_rows_and_open_gates_change_nothing() -> None:
    here, selection = context(), chosen("ffn_channel")
    groups = list(here.structure.of_kind("ffn_channel"))
    args = (here.model, here.structure, here.task, here.samples, groups)
    plain = gate_rows(*args, seed=3)
    ones = {group.name: torch.ones(group.num_units) for group in groups}
    shut = gate_rows(*args, seed=3, gates=gates_of(selection, here.structure))
    for name, rows in gate_rows(*args, seed=3, gates=ones).items():
        torch.testing.assert_close(rows, plain[name])
        assert shut[name].shape == rows.shape
        assert not torch.allclose(shut[name], rows)
        closed = torch.from_numpy(~selection.keep[name])
        assert float(shut[name][:, closed].abs().max()) > 0


def test_numbers_that_are_none_are_named() -> None:
    here = context()
    group = here.structure.of_kind("ffn_channel")[0]
    gates = {group.name: torch.full((group.num_units,), torch.nan)}
    args = (here.model, here.structure, here.task, here.samples)
    with pytest.raises(NumericsError, match="not finite|distance to the dense one is nan"):
        gate_slopes(*args, [group], gates)
