"""Options, default kinds and legal head counts."""

from __future__ import annotations

import numpy as np
import pytest

from prunepath.allocation.allocate import allocate
from prunepath.allocation.budget import Budget
from prunepath.allocation.legal import merge_illegal_steps
from prunepath.allocation.steps import StepOptions, build_steps, default_kinds, positions_per_unit
from prunepath.errors import RequestError
from prunepath.structure.discover import discover
from prunepath.structure.selection import everything
from tests.conformance.families import structure_of, tiny
from tests.conformance.paths import random_path

REFUSED = {
    "layout": ({"layout": "uneven"}, "unknown layout 'uneven'; use 'uniform' .* or 'per-layer'"),
    "multiple": ({"multiple": 0}, "multiple is 0; widths are multiples of 1 or more"),
    "floor": ({"floor": -1}, "floor is -1; a width cannot be below 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_options_refused(case: str) -> None:
    changes, message = REFUSED[case]
    with pytest.raises(RequestError, match=message):
        StepOptions(**changes)


@pytest.mark.parametrize(("floor", "part"), [("10%", 0.1), ("37.5 %", 0.375), ("100%", 1.0)])
@pytest.mark.parametrize("layout", ["per-layer", "uniform"])
def test_a_floor_may_be_a_part_of_every_group(layout: str, floor: str, part: float) -> None:
    path = random_path(structure_of("llama-untied"))
    options = StepOptions(layout=layout, multiple=1, floor=floor)
    gone: dict[str, int] = {}
    for step in build_steps(path, options):
        for group, units in step.removed:
            gone[group.name] = gone.get(group.name, 0) + len(units)
    for kind in default_kinds(path.structure, layout):
        for group in path.structure.of_kind(kind):
            left = group.num_units - gone.get(group.name, 0)
            least = -(-round(part * group.lane_width, 9) // 1) * group.num_lanes
            assert left == least, group.name


def test_a_floor_in_text_is_a_width_too() -> None:
    assert StepOptions(floor="12") == StepOptions(floor=12)


def test_unknown_kind() -> None:
    path = random_path(structure_of("llama-untied"))
    with pytest.raises(RequestError, match="unknown unit kind 'neuron'; this path has qk_coord"):
        build_steps(path, StepOptions(kinds=("neuron",)))


def test_default_kinds() -> None:
    structure = structure_of("llama-untied")
    assert set(default_kinds(structure, "uniform")) == {"query_head", "kv_group", "ffn_channel"}
    fine = {"qk_coordinate", "vo_coordinate", "ffn_channel"}
    assert set(default_kinds(structure, "per-layer")) == fine


def test_positions_per_unit() -> None:
    structure = structure_of("llama-wide-heads")  # head width 16
    found = {g.kind: positions_per_unit(structure, g) for g in structure.groups}
    assert found == {
        "ffn_channel": 1,
        "qk_coordinate": 2,
        "vo_coordinate": 1,
        "query_head": 16,
        "kv_group": 16,
        "attention": 32,
        "ffn": 52,
    }


def test_uniform_needs_layers_of_one_shape() -> None:
    from prunepath.surgery.cut import cut

    structure = structure_of("llama-untied")
    group = structure.groups_by_name["layers.0.ffn_channel"]
    some = everything(structure).without([(group, np.arange(16))])
    uneven = discover(cut(tiny("Llama", num_hidden_layers=3), structure, some))
    with pytest.raises(RequestError, match="needs every layer to have the same ffn_channel width"):
        build_steps(random_path(uneven), StepOptions(layout="uniform"))


def test_head_counts_the_config_refuses_are_passed_over() -> None:
    # Llama wants the residual width to be a multiple of the number of query heads; 40 is of 1, 2,
    # 4, 5, 8 and 10 and not of 3 and 6.
    structure = discover(tiny("Llama", hidden_size=40, num_attention_heads=10, head_dim=8))
    (stack,) = structure.stacks
    assert stack.legal_sizes["num_attention_heads"] == (1, 2, 4, 5, 8, 10)
    for seed in range(4):
        path = random_path(structure, seed)
        options = StepOptions(layout="uniform", kinds=("query_head", "kv_group"))
        merged = merge_illegal_steps(structure, build_steps(path, options))
        gone: set[tuple[str, int]] = set()
        for step in merged:
            gone |= {(g.name, int(unit)) for g, units in step.removed for unit in units}
            kv = 2 - sum(name == "layers.0.kv_group" for name, _ in gone)
            rep = 5 - sum(name == "layers.0.query_head" for name, _ in gone) // 2
            assert kv * rep in (1, 2, 4, 5, 8, 10)
        assert gone


def test_a_latency_budget_weighs_steps_without_a_table() -> None:
    path = random_path(structure_of("llama-untied"))
    got = allocate(path, Budget.parse("latency", "50%"), latency_of=lambda s: _kept(path, s))
    assert got.reached <= got.limit == 0.5 * _kept(path, everything(path.structure))


def _kept(path: object, selection: object) -> float:
    return float(sum(mask.sum() for mask in selection.keep.values()))  # type: ignore[attr-defined]
