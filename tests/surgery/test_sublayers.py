"""Models without some of their sub-layers: they generate, load, and can be cut again."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from prunepath.checkpoint.fresh import FreshProcess
from prunepath.checkpoint.load import load
from prunepath.checkpoint.save import save_model
from prunepath.checkpoint.verify import verify_reload
from prunepath.data.samples import Samples
from prunepath.structure.cost import cost_of
from prunepath.structure.discover import discover
from prunepath.structure.gates import gated, gates_of
from prunepath.structure.matrices import weight_of
from prunepath.structure.selection import Selection, everything
from prunepath.structure.units import Structure
from prunepath.surgery import proof
from prunepath.surgery.cut import cut
from prunepath.surgery.refit import cut_consumers, emptied_consumers, fill_constants_
from tests.conformance.families import FAMILIES, random_tokens, tiny
from tests.conformance.selections import select
from tests.search.problems import context_of
from tests.zoo.build import Case, furthest, text
from tests.zoo.models import CASES

TOKENS = 10
TOLERANCE = 1e-5
# Compact attention; filled with heads that the code counts, with heads it does not, with a norm
# over all heads together; two stacks; stages; experts.
MODELS = {
    "llama": Case(FAMILIES["llama-gqa-tied-biases"], text, (), generates=True),
    **{name: CASES[name] for name in ("gpt2", "olmo2", "t5", "bart", "swin", "qwen2-moe")},
}
every_model = pytest.mark.parametrize("name", MODELS)


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


@cache
def dense(name: str) -> Any:
    return MODELS[name].build()


def read(name: str, model: Any) -> Structure:
    return discover(model, probe=lambda length: model(**MODELS[name].inputs(1, length)))


@cache
def structure_of(name: str) -> Structure:
    return read(name, dense(name))


def without(selection: Selection, structure: Structure, *names: str) -> Selection:
    return selection.without([(structure.groups_by_name[name], np.array([0])) for name in names])


def ends(structure: Structure) -> tuple[str, str]:
    """The first attention and the last FFN."""
    return structure.of_kind("attention")[0].name, structure.of_kind("ffn")[-1].name


def mixed(structure: Structure, seed: int = 0) -> Selection:
    """Depth and width at once."""
    some = select(structure, "all kinds", "ratio 0.3", seed)
    return without(some, structure, *ends(structure))


@every_model
def test_gated_equals_cut_where_depth_and_width_meet(name: str) -> None:
    model, structure, batch = dense(name), structure_of(name), MODELS[name].inputs(3, TOKENS)
    selection = mixed(structure)
    smaller = cut(model, structure, selection)
    with gated(model, structure, gates_of(selection, structure)):
        expected = model(**batch)
    assert furthest(smaller(**batch), expected, batch.get("attention_mask")) <= TOLERANCE
    params = sum(parameter.numel() for parameter in smaller.parameters())
    assert cost_of(structure, selection, TOKENS).params == params


@pytest.mark.parametrize("which", ["first", "last", "first cut again"])
@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].generates])
def test_the_cache_counts_tokens_without_an_attention(name: str, which: str) -> None:
    structure = structure_of(name)
    attention = structure.of_kind("attention")[-1 if which == "last" else 0]
    model = cut(dense(name), structure, without(everything(structure), structure, attention.name))
    if which == "first cut again":
        structure = read(name, model)
        model = cut(model, structure, select(structure, "all kinds", "ratio 0.3"))
    batch = MODELS[name].inputs(2, TOKENS)
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    with_cache = model.generate(**batch, **options)
    assert torch.equal(with_cache, model.generate(**batch, **options, use_cache=False))


@every_model
def test_what_is_saved_comes_back_and_can_be_cut_again(name: str, tmp_path: Path) -> None:
    structure, batch = structure_of(name), MODELS[name].inputs(2, TOKENS)
    model = cut(dense(name), structure, mixed(structure))
    save_model(model, None, tmp_path)
    loaded = load(tmp_path)
    assert furthest(loaded(**batch), model(**batch), batch.get("attention_mask")) <= TOLERANCE
    smaller = read(name, loaded)
    removed = {structure.groups_by_name[group].place for group in ends(structure)}
    assert not removed & {group.place for group in smaller.groups}
    selection = mixed(smaller, seed=1) if smaller.of_kind("attention") else everything(smaller)
    again = cut(loaded, smaller, selection)
    with gated(loaded, smaller, gates_of(selection, smaller)):
        expected = loaded(**batch)
    assert furthest(again(**batch), expected, batch.get("attention_mask")) <= TOLERANCE
    params = sum(parameter.numel() for parameter in again.parameters())
    assert cost_of(smaller, selection, TOKENS).params == params


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_fresh_process_reads_it_back(name: str, tmp_path: Path) -> None:
    structure = structure_of(name)
    model = cut(dense(name), structure, mixed(structure))
    save_model(model, None, tmp_path)
    samples = Samples(inputs=MODELS[name].inputs(2, TOKENS))
    with FreshProcess(stock=False) as process:
        found = verify_reload(model, tmp_path, samples, process)
    assert found.difference <= found.allowed
    assert found.loader == "prunepath"


@pytest.mark.parametrize("kind", ["attention", "ffn"])
def test_the_bias_of_the_consumer_is_what_is_left(kind: str) -> None:
    structure = structure_of("gpt2")
    group = structure.of_kind(kind)[0]
    model = cut(dense("gpt2"), structure, without(everything(structure), structure, group.name))
    said: list[torch.Tensor] = []
    module = model.get_submodule(group.consumer)
    module.register_forward_hook(lambda _, args, output: said.append(output))
    model(**MODELS["gpt2"].inputs(2, TOKENS))
    assert module.weight.numel() == 0
    assert module.bias.abs().max() > 0
    assert torch.equal(said[0], module.bias.expand_as(said[0]))


def test_the_best_constant_is_what_was_said_in_the_mean() -> None:
    with torch.enable_grad():
        context = context_of(dense("llama"), random_tokens(3, 20))
    structure = context.structure
    names = ends(structure)
    selection = without(everything(structure), structure, *names)
    consumers = [structure.groups_by_name[name].consumer for name in names]
    assert sorted(emptied_consumers(structure, selection)) == sorted(consumers)
    assert not list(cut_consumers(structure, selection))
    said: dict[str, torch.Tensor] = {}
    hooks = [
        dense("llama")
        .get_submodule(name)
        .register_forward_hook(lambda _, args, output, name=name: said.update({name: output}))
        for name in consumers
    ]
    for part in context.samples.batches(len(context.samples)):
        context.task.output(dense("llama"), part.inputs)
    for hook in hooks:
        hook.remove()
    model = cut(dense("llama"), structure, selection)
    weights = {name: weight_of(dense("llama").get_submodule(name)) for name in consumers}
    fill_constants_(model, weights, consumers, context.statistics)
    for name in consumers:
        mean = said[name].reshape(-1, said[name].shape[-1]).mean(0)
        torch.testing.assert_close(model.get_submodule(name).bias, mean, rtol=1e-4, atol=1e-5)


def test_a_sub_layer_is_proven_apart_from_what_it_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    structure, model, ids = discover(tiny("Llama")), tiny("Llama"), random_tokens(2, 9)
    tried: list[set[bool]] = []
    plain = proof._difference

    def watched(model: Any, structure: Any, layer: Any, groups: Any, run: Any) -> float:
        tried.append({group.is_sublayer for group in groups})
        return plain(model, structure, layer, groups, run)

    monkeypatch.setattr(proof, "_difference", watched)
    assert proof.prove(model, structure, lambda: model(ids)).structure == structure
    assert tried == [{False}, {True}] * 2


def test_a_sub_layer_that_its_table_does_not_describe_stays() -> None:
    model = tiny("Llama")
    model.model.layers[0].mlp.act_fn = nn.Softmax(dim=-1)  # of fewer channels it is another
    ids = random_tokens(2, 9)
    found = proof.prove(model, discover(model), lambda: model(ids))
    assert set(found.failed) == {"layers.0.ffn_channel", "layers.0.ffn"}
    assert "model.layers.0.mlp" not in found.structure.places_by_path
    reasons = {item.module: item.reason for item in found.structure.left_alone}
    assert "of the answer, so it is never cut" in reasons["layers.0.ffn"]
    assert "layers.1.ffn" in found.structure.groups_by_name
