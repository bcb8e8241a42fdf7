"""Reduced weight gradients are those of autograd, and `gblm` adds them up by unit."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from prunepath.data.samples import Samples
from prunepath.errors import RequestError
from prunepath.methods.gblm import Gblm, GblmConfig
from prunepath.methods.method import SearchContext
from prunepath.statistics.collect import Wanted, recording
from prunepath.statistics.sums import Statistics
from prunepath.statistics.weights import linear_maps, weight_key
from prunepath.structure.discover import discover
from prunepath.structure.gates import frozen
from prunepath.structure.matrices import weight_of
from prunepath.tasks.causal_lm import CAUSAL_LM
from tests.conformance.families import random_tokens, tiny

KINDS = ("Llama", "GPT2LMHead", "OPT")
CLOSE = 1e-6  # norms compute in float32 whatever the model is in


def model_of(kind: str) -> Any:
    if kind == "GPT2LMHead":
        import transformers

        torch.manual_seed(0)
        config = transformers.GPT2Config(
            vocab_size=128, n_embd=24, n_layer=2, n_head=2, n_positions=64, n_inner=20
        )
        return transformers.GPT2LMHeadModel(config).double().eval()
    extra = {"ffn_dim": 28, "word_embed_proj_dim": 48} if kind == "OPT" else {}
    return tiny(kind, **extra).double()


def slope(logits: Tensor, batch: Samples) -> Tensor:
    return CAUSAL_LM.draw(logits, batch, "task", torch.Generator())


@cache
def searched(kind: str) -> SearchContext:
    """Statistics of five samples, in batches of two: the last one is smaller."""
    model = model_of(kind)
    structure = discover(model)
    samples = Samples(inputs={"input_ids": random_tokens(5, 12)})
    sums, wanted = Statistics(), Gblm().wanted()
    with (
        frozen(model),
        recording(model, structure, wanted, sums, per_sample=False) as recorder,
    ):
        for batch in samples.batches(2):
            recorder.begin(batch)
            logits = CAUSAL_LM.output(model, batch.inputs)
            logits.backward(slope(logits, batch))
    assert all(parameter.grad is None for parameter in model.parameters())
    return SearchContext(
        model=model, structure=structure, statistics=sums, task=CAUSAL_LM, samples=samples
    )


@cache
def by_autograd(kind: str) -> dict[str, Tensor]:
    """Weight gradients of every sample by itself, module -> (B, O, I), of its mean loss."""
    context = searched(kind)
    found: dict[str, list[Tensor]] = {}
    names = linear_maps(context.model, context.structure)
    for sample in context.samples.batches(1):
        context.model.zero_grad()
        logits = CAUSAL_LM.output(context.model, sample.inputs)
        logits.backward(slope(logits, sample) / sample.num_tokens)
        for name in names:
            module: Any = context.model.get_submodule(name)
            gradient = module.weight.grad.clone()
            found.setdefault(name, []).append(gradient.T if "GPT2" in kind else gradient)
    context.model.zero_grad()
    return {name: torch.stack(values) for name, values in found.items()}


def inputs_of(context: SearchContext, name: str) -> Tensor:
    rows: list[Tensor] = []
    module = context.model.get_submodule(name)
    handle = module.register_forward_pre_hook(lambda _, args: rows.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        context.model(**context.samples.inputs)
    handle.remove()
    return torch.cat(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_sums_are_those_of_autograd(kind: str) -> None:
    context = searched(kind)
    gradients = by_autograd(kind)
    assert len(gradients) >= 6
    tokens = 12  # of a sample: its gradient was that of the sum of its losses
    for name, slopes in gradients.items():
        taken = weight_of(context.model.get_submodule(name)) * slopes * tokens
        for dim, side in ((2, "output"), (1, "input")):
            key = weight_key(name, side)
            first, second = taken.abs().sum((0, dim)), taken.square().sum((0, dim))
            np.testing.assert_allclose(
                context.statistics.weight_gradients[key], first, rtol=CLOSE, atol=1e-12
            )
            np.testing.assert_allclose(
                context.statistics.weight_fisher[key], second, rtol=CLOSE, atol=1e-12
            )
        squares = inputs_of(context, name).square().sum(0)
        np.testing.assert_allclose(context.statistics.input_squares[name], squares, rtol=CLOSE)


@pytest.mark.parametrize("form", ["l1", "fisher"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_unit_scores_the_sum_over_its_weights(kind: str, form: str) -> None:
    context = searched(kind)
    alpha = 3.0
    found = Gblm(GblmConfig(form=form, alpha=alpha)).rank(context).damage
    scores: dict[str, Tensor] = {}
    for name, slopes in by_autograd(kind).items():
        weight = weight_of(context.model.get_submodule(name))
        if form == "fisher":
            scores[name] = weight.square() * slopes.square().mean(0) / 2
        else:
            norms = (inputs_of(context, name).square().sum(0) / len(context.samples)).sqrt()
            scores[name] = weight.abs() * (norms + alpha * slopes.abs().mean(0))
    for group in context.structure.groups:
        place = context.structure.places_by_path[group.place]
        expected = np.zeros(group.num_units)
        for tensor in place.tensors:
            name = tensor.name.removesuffix(".weight")
            if name not in scores:
                continue
            axes = tensor.axes[::-1] if "GPT2" in kind else tensor.axes
            for dim, axis in enumerate(axes):
                for unit in range(group.num_units):
                    mine = (
                        torch.from_numpy(axis.owner(group.unit) == unit)
                        if axis.covers(group.unit)
                        else torch.zeros(axis.size, dtype=torch.bool)
                    )
                    expected[unit] += float(scores[name].movedim(dim, 0)[mine].sum())
        np.testing.assert_allclose(found[group.name], expected, rtol=CLOSE)
        assert (expected >= 0).all()  # some of the channels are dead
        assert expected.max() > 0


def test_experts_that_are_sent_nothing_score_zero() -> None:
    from prunepath.surgery.experts import unfuse_experts_

    model = tiny("Mixtral", num_local_experts=8, num_experts_per_tok=1, num_hidden_layers=1)
    unfuse_experts_(model)
    structure = discover(model)
    samples = Samples(inputs={"input_ids": random_tokens(2, 2)})
    sums, method = Statistics(), Gblm()
    with frozen(model), recording(model, structure, method.wanted(), sums) as recorder:
        recorder.begin(samples)
        logits = CAUSAL_LM.output(model, samples.inputs)
        logits.backward(slope(logits, samples))
    context = SearchContext(
        model=model, structure=structure, statistics=sums, task=CAUSAL_LM, samples=samples
    )
    damage = method.rank(context).damage
    experts = [damage[group.name] for group in structure.of_kind("expert_channel")]
    assert len(experts) == 8
    assert sum(not scores.any() for scores in experts) >= 4  # four tokens, one expert each
    assert any((scores > 0).all() for scores in experts)


def test_nothing_is_formed_where_nothing_was_asked() -> None:
    model = model_of("Llama")
    sums = Statistics()
    wanted = Wanted(gradients=True, moments=True, output_gradients=False)
    batch = Samples(inputs={"input_ids": random_tokens(2, 12)})
    structure = discover(model)
    with frozen(model), recording(model, structure, wanted, sums) as recorder:
        recorder.begin(batch)
        logits = CAUSAL_LM.output(model, batch.inputs)
        logits.backward(slope(logits, batch))
    assert sums.fisher
    assert sums.weight_gradients == sums.weight_fisher == sums.input_squares == {}


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"form": "l2"}, "unknown form 'l2' of the method 'gblm'; use l1 or fisher"),
        ({"alpha": -1.0}, "alpha is -1.0; it must be 0 or above"),
    ],
)
def test_settings_that_make_no_sense_are_refused(config: dict[str, Any], match: str) -> None:
    with pytest.raises(RequestError, match=match):
        GblmConfig(**config)
