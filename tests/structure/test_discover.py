"""Discovery: everything is either in a unit group or listed as left alone, with the reason."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunepath.errors import ModelError
from prunepath.structure.discover import discover
from prunepath.structure.encoding import structure_from_dict, structure_to_dict
from prunepath.structure.families.llama import LLAMA
from prunepath.structure.families.table import Family, Stack
from prunepath.structure.selection import Selection
from prunepath.structure.units import Structure
from prunepath.surgery.cut import cut
from tests.conformance.families import FAMILIES, dense, structure_of, tiny

every_family = pytest.mark.parametrize("family", FAMILIES)


def reason_of(structure: Structure, module: str) -> str:
    return next(item.reason for item in structure.left_alone if item.module == module)


def check_totals(structure: Structure, model: nn.Module) -> None:
    """Covered and left alone make up the whole model, nothing twice."""
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    covered = {tensor.name for place in structure.places for tensor in place.tensors}
    assert covered <= set(sizes)
    left = sum(item.params for item in structure.left_alone)
    assert sum(sizes[name] for name in covered) + left == sum(sizes.values())
    assert structure.num_params == sum(sizes.values())
    assert structure.block_params == sum(n for name, n in sizes.items() if "layers." in name)


@every_family
def test_covered_and_left_alone_are_the_whole_model(family: str) -> None:
    structure = structure_of(family)
    check_totals(structure, dense(family))
    assert structure.num_layers == dense(family).config.num_hidden_layers
    for item in structure.left_alone:
        assert item.reason
        assert item.params > 0


def test_groups_of_a_layer() -> None:
    structure = structure_of("llama-wide-heads")  # 4 heads of width 16 in 2 KV groups, FFN 52
    found = {g.kind: (g.num_units, g.num_lanes, g.lane_width) for g in structure.groups}
    assert found == {
        "qk_coordinate": (16, 2, 8),
        "vo_coordinate": (32, 2, 16),
        "query_head": (4, 2, 2),
        "kv_group": (2, 1, 2),
        "attention": (1, 1, 1),
        "ffn_channel": (52, 1, 52),
        "ffn": (1, 1, 1),
    }
    assert structure.groups[0].name == "layers.0.qk_coordinate"
    assert len(structure.groups_by_name) == len(structure.groups) == 2 * 7


def test_reasons_of_what_stays() -> None:
    structure = structure_of("llama-untied")
    assert "embedding" in reason_of(structure, "model.embed_tokens")
    assert "norm over the residual width" in reason_of(structure, "model.norm")
    assert reason_of(structure, "lm_head") == "outside the layers"


def test_unknown_modules_are_listed() -> None:
    model = tiny("Llama")
    model.model.layers[1].adapter = nn.Linear(48, 48)
    structure = discover(model)
    check_totals(structure, model)
    reason = reason_of(structure, "model.layers.1.adapter")
    assert reason == "not named by the 'llama' table"


@pytest.mark.parametrize("name", ["q_norm", "k_norm"])
def test_norms_over_the_head_are_refused_by_name(name: str) -> None:
    model = tiny("Llama")
    setattr(model.model.layers[0].self_attn, name, nn.RMSNorm(12))
    structure = discover(model)
    check_totals(structure, model)
    assert "layers.0.qk_coordinate" not in structure.groups_by_name
    assert "layers.1.qk_coordinate" in structure.groups_by_name
    assert "layers.0.ffn_channel" in structure.groups_by_name
    for module in ("q_proj", "o_proj", name):
        reason = reason_of(structure, f"model.layers.0.self_attn.{module}")
        assert reason == "a norm over the head dimension changes when coordinates go"


@pytest.mark.parametrize(
    ("module", "replacement", "reason"),
    [
        ("k_proj", nn.Linear(48, 20), "'q_proj' should have an axis of 40 (kv=2 rep=2 half=2 pair"),
        ("o_proj", nn.Linear(40, 48), "'o_proj' should have an axis of 48 (kv=2 rep=2 value=12)"),
        ("v_proj", nn.Conv1d(48, 24, 1), "'v_proj' should be a linear map and is Conv1d"),
        ("q_proj", None, "'q_proj' should be a linear map and is nothing"),
    ],
)
def test_wrong_shapes_are_listed(module: str, replacement: nn.Module | None, reason: str) -> None:
    model = tiny("Llama")
    setattr(model.model.layers[1].self_attn, module, replacement)
    structure = discover(model)
    check_totals(structure, model)
    found = [i.reason for i in structure.left_alone if "layers.1.self_attn" in i.module]
    assert found
    assert all(text.startswith(reason) for text in found)
    assert "layers.1.vo_coordinate" not in structure.groups_by_name


def test_unknown_model_type() -> None:
    model = tiny("Llama")
    model.config.model_type = "llame"
    message = (
        r"cannot search a model of type 'llame': no family table covers it\. Known types: .*llama.*"
        r"mistral.*qwen2.*register_family"
    )
    with pytest.raises(ModelError, match=message):
        discover(model)


def test_a_model_without_its_head_is_the_same_inside() -> None:
    whole, base = discover(tiny("Llama")), discover(tiny("Llama").model)
    assert [group.name for group in base.groups] == [group.name for group in whole.groups]
    assert [f"model.{place.path}" for place in base.places] == [p.path for p in whole.places]
    assert base.block_params == whole.block_params
    check_totals(base, tiny("Llama").model)


def test_one_kind_is_refused_and_the_others_stay() -> None:
    place = replace(
        LLAMA.stacks[0].places[0],
        refuse={"q_norm": (("qk_coordinate",), "it would be normed differently")},
    )
    table = Family(
        name="normed", model_types=("llama",), stacks=(Stack(layers="layers", places=(place,)),)
    )
    model = tiny("Llama")
    model.model.layers[0].self_attn.q_norm = nn.RMSNorm(12)
    structure = discover(model, tables=(table,))
    check_totals(structure, model)
    kinds = [{g.kind for g in structure.groups if g.layer == layer} for layer in (0, 1)]
    assert kinds[1] - kinds[0] == {"qk_coordinate"}
    assert kinds[0] == {"vo_coordinate", "query_head", "kv_group", "attention"}
    reason = reason_of(structure, "model.layers.0.self_attn#qk_coordinate")
    assert reason == "it would be normed differently"


def test_nothing_to_cut() -> None:
    model = tiny("Llama")
    for layer in model.model.layers:
        layer.self_attn.q_norm = nn.RMSNorm(12)
        layer.mlp.up_proj = nn.Identity()
    with pytest.raises(ModelError, match="nothing in this 'llama' model can be cut: a norm over"):
        discover(model)


def test_nothing_left_to_cut() -> None:
    structure = structure_of("llama-untied")
    emptied = {g.name: np.zeros(g.num_units, dtype=np.bool_) for g in structure.groups}
    gone = cut(dense("llama-untied"), structure, Selection(emptied))
    with pytest.raises(ModelError, match="can be cut: everything was cut away before"):
        discover(gone)


@every_family
def test_encoding_round_trip(family: str) -> None:
    structure = structure_of(family)
    text = json.dumps(structure_to_dict(structure), sort_keys=True)
    again = structure_from_dict(json.loads(text))
    assert again == structure
    assert json.dumps(structure_to_dict(again), sort_keys=True) == text


@pytest.mark.parametrize("missing", ["groups", "places", "num_params"])
def test_encoding_refuses_what_it_cannot_read(missing: str) -> None:
    data: dict[str, Any] = structure_to_dict(structure_of("llama-untied"))
    del data[missing]
    with pytest.raises((KeyError, TypeError)):
        structure_from_dict(data)


def test_works_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = tiny("Llama")
    assert discover(model) == discover(tiny("Llama"))
