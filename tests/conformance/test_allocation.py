"""Random paths x families x layouts x metrics x budgets: never over, never smaller than needed."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from itertools import pairwise, product

import pytest

from prunepath.allocation.allocate import allocate
from prunepath.allocation.budget import Budget, metric_value
from prunepath.allocation.legal import merge_illegal_steps
from prunepath.allocation.steps import LAYOUTS, Step, StepOptions, build_steps
from prunepath.errors import BudgetError
from prunepath.path import SolutionPath
from prunepath.structure.cost import cost_of
from prunepath.structure.discover import discover
from prunepath.structure.selection import Selection, everything, sizes_by_place
from prunepath.structure.units import Structure
from tests.conformance.families import FAMILIES, dense, structure_of, tiny
from tests.conformance.paths import random_path

METRICS = ("params", "macs", "memory", "latency")
NOT_EVERY_HEAD_COUNT = {"num_attention_heads": 10, "hidden_size": 40, "head_dim": 8}
MODELS = (*FAMILIES, "llama-10-heads")
SEEDS = (0, 1)
EVERY = pytest.mark.parametrize(
    ("model", "layout", "metric", "seed"),
    [
        pytest.param(*row, id="-".join(map(str, row)))
        for row in product(MODELS, LAYOUTS, METRICS, SEEDS)
    ],
)


@cache
def structure(model: str) -> Structure:
    if model in FAMILIES:
        return structure_of(model)
    return discover(tiny("Llama", **NOT_EVERY_HEAD_COUNT))


def value(found: Structure, metric: str, selection: Selection) -> float:
    cost = cost_of(found, selection)
    if metric == "latency":  # a machine of one MAC per nanosecond that never stops waiting
        return 1e-3 + 1e-9 * cost.macs
    return metric_value(cost, metric, 512)


def steps_of(path: SolutionPath, options: StepOptions) -> list[Step]:
    steps = build_steps(path, options)
    uniform = options.layout == "uniform"
    return merge_illegal_steps(path.structure, steps) if uniform else steps


def after(path: SolutionPath, steps: list[Step]) -> Selection:
    return everything(path.structure).without([pair for step in steps for pair in step.removed])


def same(found: Structure, left: Selection, right: Selection) -> bool:
    return left.issubset(right, found) and right.issubset(left, found)


def by_layer(found: Structure, selection: Selection) -> list[dict[str, int]]:
    """Factor sizes layer by layer."""
    layers: dict[int, dict[str, int]] = {}
    sizes = sizes_by_place(found, selection)
    for place in found.places:
        layers.setdefault(place.layer, {}).update(sizes[place.path])
    return [layers[index] for index in sorted(layers)]


@EVERY
def test_largest_selection_under_the_budget(
    model: str, layout: str, metric: str, seed: int
) -> None:
    found, options = structure(model), StepOptions(layout=layout, metric=metric)
    path = random_path(found, seed)
    steps = steps_of(path, options)
    assert len(steps) > 3
    smallest = value(found, metric, after(path, steps))
    whole = value(found, metric, everything(found))
    chosen = []
    for share in (1.0, 0.9, 0.61, 0.35, 0.1, 0.0):
        limit = smallest + share * (whole - smallest)
        budget = Budget(metric=metric, limit=limit)
        got = allocate(path, budget, options, latency_of=lambda s: value(found, "latency", s))
        assert got.reached == value(found, metric, got.selection) <= limit
        chosen.append(got.selection)
        made = sum(not got.selection.of(s.removed[0][0])[s.removed[0][1]].any() for s in steps)
        assert same(found, got.selection, after(path, steps[:made])), "not a prefix of the steps"
        if made:
            assert value(found, metric, after(path, steps[: made - 1])) > limit
    for larger, smaller in pairwise(chosen):
        assert smaller.issubset(larger, found)
    assert all(chosen[0].of(group).all() for group in found.groups), "100% removes nothing"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("model", MODELS)
def test_widths_lanes_and_floors(model: str, layout: str) -> None:
    found, options = structure(model), StepOptions(layout=layout)
    path = random_path(found)
    factors = {"ffn": 1, "pair": 2, "value": 1}  # factor -> channels or coordinates of one unit
    whole = by_layer(found, everything(found))
    steps = steps_of(path, options)
    for made in range(0, len(steps) + 1, max(1, len(steps) // 8)):
        selection = after(path, steps[:made])
        selection.validate(found)  # lanes end equally wide
        sizes = by_layer(found, selection)
        for layer, full in zip(sizes, whole, strict=True):
            for factor, each in factors.items():
                width = layer[factor] * each
                assert width % 8 == 0 or layer[factor] == full[factor], (factor, width)
                assert width >= min(8, full[factor] * each)
            assert min(layer["kv"], layer["rep"]) >= 1
        if layout == "uniform":
            assert all(layer == sizes[0] for layer in sizes)
            accepts_config(model, sizes[0])


def accepts_config(model: str, sizes: dict[str, int]) -> None:
    """The family's own config class takes the sizes; it raises where it does not."""
    if model not in FAMILIES:
        assert 40 % (sizes["kv"] * sizes["rep"]) == 0
        return
    config = dense(model).config
    (stack,) = structure(model).stacks
    assert set(stack.config_sizes) <= set(config.to_dict())
    type(config)(**{**config.to_dict(), **stack.config_values(sizes)})


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("model", MODELS)
def test_without_rounding_it_is_the_prefix_of_the_path(model: str, seed: int) -> None:
    found = structure(model)
    path = random_path(found, seed)
    options = StepOptions(kinds=("ffn_channel",), multiple=1, floor=0)
    order = [pair for pair in path.removal_order if pair[0].endswith("ffn_channel")]
    for ratio in (0.05, 0.2, 0.3):
        selection = allocate(path, Budget.from_ratio(ratio), options).selection
        gone = [(name, unit) for name, unit in order if not selection.keep[name][unit]]
        assert gone == order[: len(gone)]
        assert gone


@EVERY
def test_impossible_budgets_say_what_is_possible(
    model: str, layout: str, metric: str, seed: int
) -> None:
    found, options = structure(model), StepOptions(layout=layout, metric=metric)
    path = random_path(found, seed)

    def latency_of(selection: Selection) -> float:
        return value(found, "latency", selection)

    whole = value(found, metric, everything(found))
    with pytest.raises(BudgetError, match="is above the dense model, which has"):
        allocate(path, Budget(metric=metric, limit=1.5 * whole), options, latency_of=latency_of)
    smallest = value(found, metric, after(path, steps_of(path, options)))
    too_small = Budget(metric=metric, limit=0.99 * smallest)
    with pytest.raises(BudgetError, match="the smallest model this path can give has"):
        allocate(path, too_small, options, latency_of=latency_of)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_stated_smallest_size_can_be_asked_for(layout: str, metric: str) -> None:
    def latency_of(selection: Selection) -> float:
        return value(path.structure, "latency", selection)

    options = StepOptions(layout=layout, metric=metric)
    for model in MODELS:
        path = random_path(structure(model))
        with pytest.raises(BudgetError) as caught:
            allocate(path, Budget(metric=metric, limit=1.0e-9), options, latency_of=latency_of)
        stated = re.search(r"can give has ([\d.]+ ?\w*);", str(caught.value))
        assert stated is not None
        allocate(path, Budget.parse(metric, stated[1]), options, latency_of=latency_of)


def test_the_ratio_reached_is_counted_over_block_parameters() -> None:
    path = random_path(structure("llama-untied"))
    for layout in LAYOUTS:
        got = allocate(path, Budget.from_ratio(0.3), StepOptions(layout=layout))
        removed = got.dense.params - got.cost.params
        assert got.ratio == removed / path.structure.block_params >= 0.3
        assert replace(got.options, metric="params") == got.options
