"""Mask tuning: the closed form is the least-squares answer, and it stays out where it should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prunepath.errors import NumericsError
from prunepath.statistics.sums import Statistics
from prunepath.structure.selection import Selection, everything
from prunepath.structure.units import UnitGroup
from prunepath.surgery.refit import Consumer, cut_consumers
from prunepath.surgery.scales import (
    column_units,
    scale_from_moments_,
    scale_in_order_,
    unit_scales,
)
from prunepath.surgery.stream import Stream
from tests.conformance.families import structure_of

UNITS = np.array([0, 0, 1, 1, 2, 2])


def problem(rows: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs (N, 6), weights (5, 6) and the outputs (N, 5) of scales 0.5, 1.5 and -2."""
    torch.manual_seed(0)
    inputs = torch.randn(rows, 6, dtype=torch.float64)
    weight = torch.randn(5, 6, dtype=torch.float64)
    truth = torch.tensor([0.5, 1.5, -2.0], dtype=torch.float64)[torch.from_numpy(UNITS)]
    return inputs, weight, inputs @ (weight * truth).T


def solved(inputs: Tensor, weight: Tensor, wishes: Tensor, damping: float = 0.0) -> Tensor:
    moment, cross = inputs.T @ inputs / len(inputs), wishes.T @ inputs / len(inputs)
    return unit_scales(weight, moment, cross, UNITS, damping=damping)


def test_scales_are_found_again() -> None:
    truth = torch.tensor([0.5, 1.5, -2.0], dtype=torch.float64)
    torch.testing.assert_close(solved(*problem()), truth)


def test_equals_least_squares_on_the_design_matrix() -> None:
    inputs, weight, wishes = problem()
    wishes = wishes + torch.randn_like(wishes)
    parts = inputs.unsqueeze(1) * weight  # (N, O, S)
    design = parts.reshape(-1, 3, 2).sum(-1)  # two columns a unit
    expected = torch.linalg.lstsq(design, wishes.reshape(-1, 1)).solution.squeeze(1)
    torch.testing.assert_close(solved(inputs, weight, wishes), expected)


def test_what_needs_no_scale_gets_none() -> None:
    inputs, weight, _ = problem()
    ones = torch.ones(3, dtype=torch.float64)
    for damping in (0.0, 0.1, 10.0):
        torch.testing.assert_close(solved(inputs, weight, inputs @ weight.T, damping), ones)


def test_damping_holds_scales_at_one() -> None:
    distances = [float((solved(*problem(), damping) - 1).norm()) for damping in (0.0, 0.1, 1, 1e3)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 0.02 < 0.5 * distances[0]


@pytest.mark.parametrize("wild", [11.0, -10.5])
def test_wild_scales_leave_the_group_alone(wild: float) -> None:
    inputs, weight, _ = problem()
    truth = torch.tensor([1.1, wild, 0.9], dtype=torch.float64)[torch.from_numpy(UNITS)]
    found = solved(inputs, weight, inputs @ (weight * truth).T)
    assert torch.equal(found, torch.ones(3, dtype=torch.float64))


def test_moments_that_are_not_finite_are_refused() -> None:
    inputs, weight, wishes = problem()
    with pytest.raises(NumericsError, match=r"cannot be factored|is not finite"):
        solved(inputs, weight, wishes * float("nan"))


@torch.no_grad()
def test_every_consumer_sees_the_scales_before_it() -> None:
    torch.manual_seed(0)
    dense: Any = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 4))
    inputs = torch.randn(64, 5, 6)
    outputs = {"0": dense[0](inputs)}
    outputs["2"] = dense[2](dense[1](outputs["0"]))
    keep = np.array([True, True, True, True, False, False])
    units = np.arange(4)

    def cut() -> Any:
        smaller: Any = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(4, 4))
        for index in (0, 2):
            smaller[index].weight.copy_(dense[index].weight[:, :4])
            smaller[index].bias.copy_(dense[index].bias)
        return smaller

    def tuned(names: tuple[str, ...]) -> tuple[Any, Tensor]:
        model = cut()
        seen: list[Tensor] = []

        def run() -> None:
            hidden = torch.tanh(model[0](inputs[..., :4]))
            seen.append(hidden[..., :4])
            model[2](hidden[..., :4])

        scale_in_order_(
            model,
            Stream(outputs=outputs, run=run, skip_first=False, additive=False),
            {name: dense.get_submodule(name).weight for name in ("0", "2")},
            [Consumer(name, keep) for name in names],
            dict.fromkeys(names, units),
            damping=0.0,
        )
        return model, seen[0]

    both, hidden = tuned(("0", "2"))
    rows = hidden.reshape(-1, 4).double()
    wishes = (outputs["2"] - dense[2].bias).reshape(-1, 4).double()
    weight = dense[2].weight[:, :4].double()
    expected = unit_scales(
        weight, rows.T @ rows / len(rows), wishes.T @ rows / len(rows), units, damping=0.0
    )
    torch.testing.assert_close(both[2].weight.double(), weight * expected, rtol=1e-4, atol=1e-6)
    alone, _ = tuned(("2",))
    assert not torch.allclose(both[2].weight, alone[2].weight, atol=1e-4)
    assert torch.equal(alone[0].weight, dense[0].weight[:, :4])


@torch.no_grad()
def test_from_moments_it_is_what_dense_inputs_ask_for() -> None:
    torch.manual_seed(0)
    inputs, dense = torch.randn(300, 6) @ torch.randn(6, 6), nn.Linear(6, 5)
    statistics = Statistics()
    statistics.add_moment_("moments", "down", inputs)
    statistics.add_("rows", "down", torch.tensor([float(len(inputs))]))
    keep = np.array([True, True, True, True, False, False])
    cut: Any = nn.ModuleDict({"down": nn.Linear(4, 5)})
    cut["down"].weight.copy_(dense.weight[:, :4])
    before = (inputs @ dense.weight.T - inputs[:, :4] @ cut["down"].weight.T).square().sum()
    consumer = Consumer("down", keep)
    weights = {"down": dense.weight}
    scale_from_moments_(cut, weights, [consumer], statistics, {"down": np.arange(4)}, damping=0.0)
    after = (inputs @ dense.weight.T - inputs[:, :4] @ cut["down"].weight.T).square().sum()
    design = (inputs[:, None, :4] * dense.weight[:, :4]).reshape(-1, 4)
    wish = (inputs @ dense.weight.T).reshape(-1, 1)
    best = torch.linalg.lstsq(design.double(), wish.double()).solution
    residual = (design.double() @ best - wish.double()).square().sum()
    assert float(after) == pytest.approx(float(residual), rel=1e-4)
    assert after < before


def cut_of(name: str, units: list[int]) -> tuple[UnitGroup, Selection]:
    structure = structure_of("llama-untied")
    group = structure.groups_by_name[name]
    return group, everything(structure).without([(group, np.array(units))])


def test_columns_of_one_unit_share_its_scale() -> None:
    structure = structure_of("llama-untied")  # 2 KV groups of 2 query heads, each 12 wide
    group, selection = cut_of("layers.1.kv_group", [0])
    (consumer,) = cut_consumers(structure, selection)
    assert consumer.name == group.consumer
    assert column_units(structure, selection, consumer).tolist() == [0] * 24
    _, selection = cut_of("layers.1.query_head", [1, 2])
    (consumer,) = cut_consumers(structure, selection)
    assert column_units(structure, selection, consumer).tolist() == [0] * 12 + [1] * 12
    group, selection = cut_of("layers.0.ffn_channel", [0, 3])
    (consumer,) = cut_consumers(structure, selection)
    assert column_units(structure, selection, consumer).tolist() == list(range(54))
