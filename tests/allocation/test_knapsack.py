"""The rule `knapsack` on tiny encoders: equal to brute force, never above the budget."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from prunepath.allocation.allocate import Allocation, allocate
from prunepath.allocation.budget import Budget, metric_value
from prunepath.allocation.knapsack import default_classes, fewest_damage, kept_damage
from prunepath.allocation.steps import StepOptions, build_steps
from prunepath.errors import BudgetError, RequestError
from prunepath.path import SolutionPath
from prunepath.structure.cost import cost_of
from prunepath.structure.discover import discover
from prunepath.structure.selection import Selection
from tests.conformance.families import structure_of
from tests.conformance.paths import random_path

LENGTH = 16
SINGLE = StepOptions(rule="knapsack", multiple=1, floor=0, sequence_length=LENGTH)
SHARES = [0.05, 0.2, 0.4, 0.6, 0.8, 1.0]
METRICS = ["params", "macs", "memory"]


@cache
def encoder(heads: int = 3, channels: int = 5, layers: int = 2) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40,
        hidden_size=4 * heads,
        num_attention_heads=heads,
        intermediate_size=channels,
        num_hidden_layers=layers,
        max_position_embeddings=32,
    )
    return discover(BertForSequenceClassification(config))


def block_budget(path: SolutionPath, metric: str, share: float) -> Budget:
    """That much of what heads and channels cost is kept; the rest of the model is not counted."""
    structure = path.structure
    dense = metric_value(cost_of(structure, Selection({}), LENGTH), metric, LENGTH)
    none = Selection(
        {
            group.name: np.zeros(group.num_units, dtype=np.bool_)
            for group in structure.groups
            if group.kind in ("head", "ffn_channel")
        }
    )
    least = metric_value(cost_of(structure, none, LENGTH), metric, LENGTH)
    return Budget(metric=metric, limit=least + share * (dense - least))


def all_subsets(path: SolutionPath) -> tuple[Any, Any, list[Any]]:
    """Every subset of all heads and channels: the sum of its damages and its units per group."""
    groups = [g for g in path.structure.groups if g.kind in ("head", "ffn_channel")]
    sizes = [group.num_units for group in groups]
    flags = np.arange(2 ** sum(sizes))[:, None] >> np.arange(sum(sizes)) & 1
    damage = np.concatenate([path.damage[group.name].astype(np.float64) for group in groups])
    numbers = np.stack([part.sum(1) for part in np.split(flags, np.cumsum(sizes)[:-1], axis=1)], 1)
    return flags @ damage, numbers, groups


def counted(path: SolutionPath, metric: str, groups: list[Any], numbers: Any) -> float:
    """The exact metric with that many units left in each group."""
    keep = {g.name: np.arange(g.num_units) < n for g, n in zip(groups, numbers, strict=True)}
    return metric_value(cost_of(path.structure, Selection(keep), LENGTH), metric, LENGTH)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("seed", range(3))
def test_equals_brute_force(metric: str, seed: int) -> None:
    path = random_path(encoder(), seed)
    totals, numbers, groups = all_subsets(path)
    shapes, which = np.unique(numbers, axis=0, return_inverse=True)
    costs = np.array([counted(path, metric, groups, shape) for shape in shapes])[which.reshape(-1)]
    for share in SHARES:
        budget = block_budget(path, metric, share)
        found = allocate(path, budget, SINGLE)
        assert found.reached <= found.limit
        best = totals[costs <= found.limit].max()
        assert found.damage_kept["knapsack"] == pytest.approx(best)


@pytest.mark.parametrize("options", [SINGLE, replace(SINGLE, multiple=4, floor=8)], ids=str)
@pytest.mark.parametrize("metric", METRICS)
def test_never_above_the_budget_and_never_worse_than_the_order(
    metric: str, options: StepOptions
) -> None:
    path = random_path(encoder(heads=4, channels=48, layers=3))
    better = 0
    largest = max(
        float(path.damage[group.name][units].sum())
        for step in build_steps(path, replace(options, kinds=("head", "ffn_channel")))
        for group, units in step.removed
    )
    for share in np.linspace(0.05, 1, 20):
        budget = block_budget(path, metric, float(share))
        try:
            found = allocate(path, budget, options)
        except BudgetError:
            assert options.floor, "without a floor everything can be reached"
            continue
        cost = cost_of(path.structure, found.selection, LENGTH)
        assert metric_value(cost, metric, LENGTH) == found.reached <= found.limit
        order = allocate(path, budget, replace(options, rule="order", kinds=found.options.kinds))
        assert found.damage_kept["order"] == order.damage_kept["order"]
        gained = found.damage_kept["knapsack"] - found.damage_kept["order"]
        assert 0 <= gained <= largest, "the order is a step from the optimum"
        better += found.damage_kept["knapsack"] > found.damage_kept["order"]
        assert found.damage_kept["knapsack"] == kept_damage(
            path, found.selection, found.options.kinds
        )
    assert better


def test_a_multiple_and_a_floor_are_obeyed() -> None:
    path = random_path(encoder(heads=4, channels=48, layers=3))
    options = replace(SINGLE, multiple=4, floor=12)
    found = allocate(path, block_budget(path, "macs", 0.7), options)
    for group in path.structure.of_kind("ffn_channel"):
        assert found.selection.of(group).sum() % 4 == 0
        assert found.selection.of(group).sum() >= 12
        order = path.order_in(group)
        left = found.selection.of(group)[order]
        assert np.all(np.diff(left.astype(int)) >= 0), "bundles leave in the path's order"
    for group in path.structure.of_kind("head"):
        assert found.selection.of(group).sum() >= 3  # 12 coordinates of heads that are 4 wide


def test_one_kind_takes_the_least_damage() -> None:
    path = random_path(encoder(channels=24))
    options = replace(SINGLE, kinds=("ffn_channel",))
    found = allocate(path, Budget.from_ratio(0.2), options)
    groups = path.structure.of_kind("ffn_channel")
    kept = np.concatenate([found.selection.of(group) for group in groups])
    damage = np.concatenate([path.damage[group.name] for group in groups])
    assert damage[~kept].max() < damage[kept].min()
    assert 0 < (~kept).sum() < len(kept)


def test_the_dense_model_stays_whole() -> None:
    path = random_path(encoder())
    found = allocate(path, Budget.from_ratio(0), SINGLE)
    assert all(found.selection.of(group).all() for group in path.structure.groups)
    assert found.damage_kept["order"] == found.damage_kept["knapsack"]


def test_smaller_budgets_may_take_units_back() -> None:
    path = random_path(encoder(heads=4, channels=48, layers=3))
    shares = np.linspace(0.3, 1, 60)
    kept = [
        allocate(path, block_budget(path, "macs", float(share)), SINGLE).selection
        for share in shares
    ]
    assert not all(small.issubset(large, path.structure) for small, large in pairwise(kept))


def test_default_classes_are_heads_and_channels() -> None:
    assert default_classes(encoder()) == ("head", "ffn_channel")
    assert default_classes(structure_of("llama-untied")) == ("kv_group", "ffn_channel")
    path = random_path(structure_of("llama-untied"))
    options = StepOptions(rule="knapsack")
    found: Allocation = allocate(path, Budget.from_ratio(0.3), options)
    assert found.options.kinds == ("kv_group", "ffn_channel")
    assert found.damage_kept["knapsack"] >= found.damage_kept["order"]


def test_ten_thousand_units_take_no_time() -> None:
    import time

    path = random_path(encoder(heads=12, channels=5000, layers=2))
    options = replace(SINGLE, kinds=("head", "ffn_channel"), metric="macs")
    steps = build_steps(path, options)
    assert len(steps) > 10_000

    def value(selection: Selection) -> float:
        return cost_of(path.structure, selection, LENGTH).macs

    limit = 0.6 * value(Selection({}))
    start = time.perf_counter()
    selection = fewest_damage(path, steps, options, limit, value)
    assert time.perf_counter() - start < 5, "quadratic in the number of units"
    assert value(selection) <= limit


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "three kinds": (
        "llama-untied",
        {"kinds": ("qk_coordinate", "vo_coordinate", "ffn_channel")},
        r"weighs two kinds .* and 3 were asked for \(.*\); name one or two with --kinds",
    ),
    "overlapping kinds": (
        "llama-untied",
        {"kinds": ("kv_group", "vo_coordinate"), "floor": 0, "multiple": 1},
        "vo_coordinate and kv_group are cut from the same weights of 'model.layers.0.self_attn'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_kinds_it_cannot_weigh(case: str) -> None:
    model, wish, message = REFUSED[case]
    path = random_path(structure_of(model))
    with pytest.raises(RequestError, match=message):
        allocate(path, Budget.from_ratio(0.1), StepOptions(rule="knapsack", **wish))


def test_steps_that_cost_differently() -> None:
    path = random_path(encoder(heads=4, channels=45))
    options = replace(SINGLE, multiple=8)
    message = (
        r"steps of one kind to cost the same, and ffn_channel steps cost \d+ params in "
        r"'layers.\d.ffn_channel' and \d+ in .* a --multiple that divides their widths"
    )
    with pytest.raises(RequestError, match=message):
        allocate(path, Budget.from_ratio(0.1), options)


def test_options_refused() -> None:
    with pytest.raises(
        RequestError, match="unknown rule 'best'; use 'order' .*, 'knapsack' .* or 'shares'"
    ):
        StepOptions(rule="best")
    with pytest.raises(RequestError, match="measured latency does not; use --macs, --params"):
        allocate(random_path(encoder()), Budget.parse("latency", "50%"), SINGLE)
