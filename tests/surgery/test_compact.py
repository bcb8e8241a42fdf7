"""The compact attention beyond the tables: cut twice, other number types, training, memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from prunepath.structure.discover import discover
from prunepath.structure.gates import gated, gates_of
from prunepath.structure.selection import everything
from prunepath.surgery.cut import cut
from tests.conformance.families import FAMILIES, dense, random_tokens, structure_of, unit_kinds
from tests.conformance.selections import select

FAMILY = "llama-untied"
KINDS = unit_kinds(FAMILY)


@pytest.mark.parametrize("second", KINDS)
@pytest.mark.parametrize("first", KINDS)
def test_a_cut_model_can_be_cut_again(first: str, second: str) -> None:
    structure = structure_of(FAMILY)
    once = cut(dense(FAMILY), structure, select(structure, first, "ratio 0.3"))
    smaller = discover(once)
    selection = select(smaller, second, "ratio 0.3", seed=1)
    ids = random_tokens(2, 16)
    with torch.no_grad():
        with gated(once, smaller, gates_of(selection, smaller)):
            expected = once(ids).logits
        found = cut(once, smaller, selection)(ids).logits
    assert float((found - expected).abs().max()) <= 1e-5


@pytest.mark.parametrize("second", ["kv_group", "vo_coordinate"])
@pytest.mark.parametrize("first", ["qk_coordinate", "vo_coordinate", "kv_group"])
def test_pairs_stay_where_they_are_no_units(first: str, second: str) -> None:
    """Of a path that does not order them, in a dense model and in one that was cut before."""
    structure = structure_of(FAMILY)
    once = cut(dense(FAMILY), structure, select(structure, first, "ratio 0.3"))
    found = discover(once)
    others = tuple(group for group in found.groups if group.kind != "qk_coordinate")
    smaller = replace(found, groups=others)
    selection = select(smaller, second, "ratio 0.3", seed=1)
    ids = random_tokens(2, 16)
    with torch.no_grad():
        with gated(once, smaller, gates_of(selection, smaller)):
            expected = once(ids).logits
        made = cut(once, smaller, selection)(ids).logits
    assert float((made - expected).abs().max()) <= 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["ratio 0.3", "all emptied"])
def test_number_types_stay(name: str, dtype: torch.dtype) -> None:
    model = FAMILIES[FAMILY]().to(dtype)
    structure = discover(model)
    smaller = cut(model, structure, select(structure, "all kinds", name))
    assert {p.dtype for p in smaller.parameters()} == {dtype}
    with torch.no_grad():
        out = smaller(random_tokens(2, 9), use_cache=True)
        more = smaller(random_tokens(2, 1), past_key_values=out.past_key_values)
    assert out.logits.dtype == more.logits.dtype == dtype
    assert all(layer.keys.dtype == dtype for layer in out.past_key_values.layers)


def test_a_cut_model_can_be_trained() -> None:
    structure = structure_of(FAMILY)
    smaller = cut(dense(FAMILY), structure, select(structure, "all kinds", "ratio 0.3"))
    smaller.train()
    ids = random_tokens(2, 12)
    smaller(ids, labels=ids).loss.backward()
    assert all(p.requires_grad and p.grad is not None for p in smaller.parameters())


def test_a_cut_keeps_whether_weights_are_trained() -> None:
    model = FAMILIES[FAMILY]()
    model.requires_grad_(False)
    structure = discover(model)
    smaller = cut(model, structure, select(structure, "all kinds", "ratio 0.3"))
    assert not any(p.requires_grad for p in smaller.parameters())


def test_a_cut_shares_no_memory_with_the_dense_model() -> None:
    structure = structure_of(FAMILY)
    model = dense(FAMILY)
    storage = {p.untyped_storage().data_ptr() for p in model.parameters()}
    for selection in (everything(structure), select(structure, "all kinds", "ratio 0.3")):
        for parameter in cut(model, structure, selection).parameters():
            assert parameter.untyped_storage().data_ptr() not in storage
            used = parameter.numel() * parameter.element_size()
            assert parameter.untyped_storage().nbytes() == used, "the cut tensor is only a view"


def test_tied_embeddings_stay_tied() -> None:
    family = "llama-gqa-tied-biases"
    structure = structure_of(family)
    smaller = cut(dense(family), structure, select(structure, "all kinds", "ratio 0.3"))
    assert smaller.lm_head.weight is smaller.model.embed_tokens.weight


@pytest.mark.parametrize("kind", ["qk_coordinate", "vo_coordinate"])
def test_state_dict_keeps_its_names(kind: str) -> None:
    structure = structure_of(FAMILY)
    smaller = cut(dense(FAMILY), structure, select(structure, kind, "ratio 0.3"))
    new = set(smaller.state_dict()) - set(dense(FAMILY).state_dict())
    assert all(name.endswith(".rotary_pairs") for name in new)
    assert set(dense(FAMILY).state_dict()) <= set(smaller.state_dict())


def test_attention_weights_can_be_read() -> None:
    structure = structure_of(FAMILY)
    smaller = cut(dense(FAMILY, "eager"), structure, select(structure, "all kinds", "ratio 0.3"))
    ids = random_tokens(1, 6)
    attentions = smaller(ids, output_attentions=True).attentions
    assert [weights.shape[-2:] for weights in attentions] == [(6, 6)] * structure.num_layers


@pytest.mark.parametrize("how", [{"cache_implementation": "static"}, {"num_beams": 3}], ids=str)
@pytest.mark.parametrize("name", ["ratio 0.3", "one group emptied"])
def test_other_ways_to_generate(name: str, how: dict[str, object]) -> None:
    structure = structure_of(FAMILY)
    smaller = cut(dense(FAMILY), structure, select(structure, "all kinds", name))
    ids = random_tokens(2, 8)
    found = smaller.generate(ids, max_new_tokens=4, do_sample=False, **how)
    whole = smaller.generate(ids, max_new_tokens=4, do_sample=False, **how, use_cache=False)
    assert found.tolist() == whole.tolist()
