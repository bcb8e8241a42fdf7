"""What a cut leaves in the config: fields the family's own code reads, or a record of ours."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from prunepath.structure.discover import discover
from prunepath.structure.selection import Selection, everything, sizes_by_place
from prunepath.surgery.cut import cut
from tests.conformance.families import FAMILIES, dense, random_tokens, structure_of, tiny
from tests.conformance.selections import keep_random, select

NATIVE = ("ffn_channel", "query_head", "kv_group")
UNIFORM = {"ffn": ("ffn_channel",), "heads": ("query_head", "kv_group"), "ffn+heads": NATIVE}


def uniform(family: str, kinds: tuple[str, ...], seed: int = 0) -> Selection:
    """Every layer loses about half of its units of these kinds, other ones in each."""
    structure, rng = structure_of(family), np.random.default_rng(seed)
    chosen = {
        group.name: keep_random(group, (group.lane_width + 1) // 2, rng)
        for group in structure.groups
        if group.kind in kinds
    }
    return Selection({**everything(structure).keep, **chosen})


@pytest.mark.parametrize("what", UNIFORM)
@pytest.mark.parametrize("family", FAMILIES)
def test_uniform_cuts_load_in_stock_classes(family: str, what: str, tmp_path: Path) -> None:
    model = cut(dense(family), structure_of(family), uniform(family, UNIFORM[what]))
    assert getattr(model.config, "prunepath", None) is None
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(again) is type(dense(family))
    assert "prunepath" not in (tmp_path / "config.json").read_text()
    ids = random_tokens(2, 20)
    with torch.no_grad():
        assert torch.equal(again.eval()(ids).logits, model(ids).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_dense_config_is_left_alone(family: str) -> None:
    before = dense(family).config.to_dict()
    cut(dense(family), structure_of(family), uniform(family, NATIVE))
    cut(dense(family), structure_of(family), select(structure_of(family), "all kinds", "ratio 0.3"))
    assert dense(family).config.to_dict() == before


@pytest.mark.parametrize("kind", ["qk_coordinate", "vo_coordinate", "all kinds"])
@pytest.mark.parametrize("family", FAMILIES)
def test_other_cuts_leave_a_record(family: str, kind: str) -> None:
    structure = structure_of(family)
    selection = select(structure, kind, "ratio 0.3")
    model = cut(dense(family), structure, selection)
    record: dict[str, Any] = model.config.prunepath
    assert record["format_version"] == 2
    sizes = sizes_by_place(structure, selection)
    changed = {place.path for place in structure.places if sizes[place.path] != place.factors}
    assert {path: entry["sizes"] for path, entry in record["places"].items()} == {
        path: sizes[path] for path in changed
    }
    assert model.config.hidden_size == dense(family).config.hidden_size
    config = dense(family).config
    assert model.config.num_attention_heads == config.num_attention_heads, "fields stay dense"


def test_layers_that_differ_leave_a_record() -> None:
    structure = structure_of("llama-untied")
    group = structure.groups_by_name["layers.1.ffn_channel"]
    some = everything(structure).without([(group, np.arange(8))])
    record = cut(dense("llama-untied"), structure, some).config.prunepath
    assert record["places"] == {"model.layers.1.mlp": {"sizes": {"ffn": 48}}}


def test_head_counts_the_config_refuses_leave_a_record() -> None:
    model = tiny("Llama", hidden_size=40, num_attention_heads=10, head_dim=8)
    structure = discover(model)
    keep = everything(structure).without(
        [(group, np.array([0, 1, 5, 6])) for group in structure.of_kind("query_head")]
    )
    smaller = cut(model, structure, keep)  # 6 heads, and 40 is no multiple of 6
    places = smaller.config.prunepath["places"]
    assert [entry["sizes"]["rep"] for entry in places.values()] == [3, 3]
    assert torch.isfinite(smaller(random_tokens(1, 8)).logits).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_model_s_structure_is_the_smaller_one(family: str) -> None:
    structure = structure_of(family)
    for kind in ("ffn_channel", "all kinds"):
        selection = select(structure, kind, "ratio 0.3")
        smaller = cut(dense(family), structure, selection)
        found = discover(smaller)
        sizes = {place.path: place.factors for place in found.places}
        assert sizes == sizes_by_place(structure, selection)
        assert found.num_params == sum(p.numel() for p in smaller.parameters())


def test_widths_that_changed_are_named_in_the_modules() -> None:
    structure = structure_of("llama-untied")
    model = cut(dense("llama-untied"), structure, uniform("llama-untied", NATIVE))
    text = str(model.model.layers[0].mlp)
    assert re.search(r"down_proj\): Linear\(in_features=28, out_features=48", text)
    assert model.model.layers[0].mlp.intermediate_size == 28
