"""Noise beside a linear map is noise in its weight, and the score is that of losses by hand."""

from __future__ import annotations

import copy

import pytest
import torch

from prunepath.errors import NumericsError
from prunepath.statistics.noise import linears_of, noise_scores, noisy
from prunepath.structure.matrices import set_weight_, weight_of
from tests.rules.models import MODELS, ready
from tests.zoo.build import make


@pytest.mark.parametrize("name", MODELS)
def test_noise_beside_the_map_is_noise_in_the_weight(name: str) -> None:
    tiny = ready(name)
    inputs = tiny.samples.to("cpu")
    for place in tiny.structure.places[:2]:
        for linear in linears_of(tiny.model, place):
            written = copy.deepcopy(tiny.model)
            module = written.get_submodule(linear)
            weight = weight_of(module)
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
            set_weight_(module, weight + 0.1 * noise)
            with torch.no_grad():
                expected = tiny.task.output(written, inputs)
                with noisy(tiny.model, linear, 0.1, torch.Generator().manual_seed(3)):
                    found = tiny.task.output(tiny.model, inputs)
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_transposed_weights() -> None:
    from transformers import GPT2Config

    from prunepath.structure.discover import discover

    model = make("GPT2LMHeadModel", GPT2Config(vocab_size=64, n_embd=16, n_head=2, n_layer=1))
    place = discover(model).places[0]
    (linear, *_) = linears_of(model, place)
    ids = torch.arange(8)[None]
    written = copy.deepcopy(model)
    module = written.get_submodule(linear)
    weight = weight_of(module)
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    set_weight_(module, weight - 0.1 * noise)
    with torch.no_grad(), noisy(model, linear, -0.1, torch.Generator().manual_seed(0)):
        torch.testing.assert_close(model(ids).logits, written(ids).logits, atol=1e-4, rtol=1e-4)


def test_the_score_is_the_difference_of_losses_by_hand() -> None:
    tiny = ready("decoder")
    model, samples, epsilon = copy.deepcopy(tiny.model).double(), tiny.samples, 1e-3
    linears = linears_of(model, tiny.structure.places[0])
    found = noise_scores(model, tiny.task, samples, linears, objective="task", seed=1)
    batches = list(samples.batches(tiny.task.counts.batch))
    for which, linear in enumerate(linears):
        by_hand = 0.0
        for index, batch in enumerate(batches):
            seed = (1_000_003 + index) * 1_000_003 + which
            losses = []
            for sign in (1, -1):
                written = copy.deepcopy(model)
                module = written.get_submodule(linear)
                weight = weight_of(module)
                noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
                set_weight_(module, weight + (sign * epsilon * noise).double())
                with torch.no_grad():
                    logits = tiny.task.output(written, batch.to("cpu"))[:, :-1]
                    labels = batch.inputs["input_ids"][:, 1:]
                losses.append(
                    torch.nn.functional.cross_entropy(
                        logits.flatten(0, 1), labels.flatten(), reduction="sum"
                    )
                )
            by_hand += abs(float(losses[0] - losses[1])) / (2 * epsilon)
        assert by_hand > 0.01
        assert found[linear] == pytest.approx(by_hand, rel=2e-3)


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_model_gets_scores_by_seed(name: str) -> None:
    tiny = ready(name)
    linears = [each for place in tiny.structure.places for each in linears_of(tiny.model, place)]
    first, second, other = (
        noise_scores(tiny.model, tiny.task, tiny.samples, linears, seed=seed) for seed in (0, 0, 1)
    )
    assert first == second != other
    assert set(first) == set(linears)
    assert sum(score > 0 for score in first.values()) > len(linears) / 2
    assert not any(module._forward_hooks for module in tiny.model.modules())


def test_answers_that_are_not_finite_are_refused() -> None:
    tiny = ready("encoder")
    (linear, *_) = linears_of(tiny.model, tiny.structure.places[0])
    with pytest.raises(NumericsError, match="with noise in .* the answers are not finite; load"):
        noise_scores(tiny.model, tiny.task, tiny.samples, [linear], epsilon=float("inf"))
