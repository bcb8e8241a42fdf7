"""Causal language modelling as a task: gradients, distances and losses, padded or not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional

from prunepath.data.samples import Samples
from prunepath.errors import DataError, NumericsError, RequestError
from prunepath.statistics.objective import draw_labels_
from prunepath.tasks import TASKS
from prunepath.tasks.causal_lm import CAUSAL_LM
from prunepath.tasks.task import DataRequest

Factory = Callable[..., Any]
IDS = torch.arange(12).view(2, 6) * 37 % 300


def plain() -> Samples:
    return Samples(inputs={"input_ids": IDS})


def padded(side: str) -> Samples:
    """The same windows, with two positions of padding."""
    pad = (0, 2) if side == "right" else (2, 0)
    return Samples(
        inputs={
            "input_ids": functional.pad(IDS, pad, value=7),
            "attention_mask": functional.pad(torch.ones_like(IDS), pad),
        }
    )


def random_logits(samples: Samples, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*samples.inputs["input_ids"].shape, 300, generator=generator)


def test_it_is_the_registered_one() -> None:
    assert TASKS["causal-lm"] is CAUSAL_LM


@pytest.mark.parametrize("samples", [plain(), padded("right"), padded("left")])
def test_the_task_gradient_is_that_of_the_loss(samples: Samples) -> None:
    logits = random_logits(samples).requires_grad_()
    CAUSAL_LM.loss(logits, samples).backward()
    num_predicted = 2 * 5
    drawn = CAUSAL_LM.draw(logits.detach().clone(), samples, "task", torch.Generator())
    assert logits.grad is not None
    torch.testing.assert_close(drawn, num_predicted * logits.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_counts_nowhere(side: str) -> None:
    own, dense = random_logits(plain()), random_logits(plain(), 1)
    pad = (0, 0, 0, 2) if side == "right" else (0, 0, 2, 0)
    samples = padded(side)
    wide = [functional.pad(logits, pad, value=5.0) for logits in (own, dense)]
    torch.testing.assert_close(CAUSAL_LM.loss(wide[0], samples), CAUSAL_LM.loss(own, plain()))
    torch.testing.assert_close(
        CAUSAL_LM.distance(*wide, samples), CAUSAL_LM.distance(own, dense, plain())
    )
    for objective in ("kl", "task"):
        logits = functional.pad(own, pad, value=float("nan"))
        drawn = CAUSAL_LM.draw(logits, samples, objective, torch.Generator().manual_seed(0))
        padding = ~samples.inputs["attention_mask"].bool()
        assert (drawn[padding] == 0).all()
        assert (drawn[~padding] != 0).any()


def test_sampled_labels_have_the_predicted_frequencies() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0]).repeat(20_000, 1)
    probabilities = logits[0].softmax(-1)
    drawn = draw_labels_(logits.clone(), torch.Generator().manual_seed(0))
    covariance = drawn.T @ drawn / len(drawn)
    expected = probabilities.diag() - torch.outer(probabilities, probabilities)
    torch.testing.assert_close(covariance, expected, atol=0.02, rtol=0)


def test_the_gradient_takes_the_memory_of_the_logits() -> None:
    logits = random_logits(plain())
    assert draw_labels_(logits, torch.Generator()).data_ptr() == logits.data_ptr()


def test_wrong_draws_are_refused() -> None:
    with pytest.raises(RequestError, match="unknown objective 'l2'; use 'kl'"):
        CAUSAL_LM.draw(random_logits(plain()), plain(), "l2", torch.Generator())
    bad = random_logits(plain())
    bad[1, 2, 3] = torch.inf
    with pytest.raises(NumericsError, match="logits hold NaN or infinity on calibration data"):
        CAUSAL_LM.draw(bad, plain(), "kl", torch.Generator())


def test_the_body_runs_without_the_head(tiny_llama: Factory) -> None:
    model = tiny_llama()
    ran: list[str] = []
    for name in ("model", "lm_head"):
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    CAUSAL_LM.body(model, plain().inputs)
    assert ran == ["model"]


def test_samples_are_windows_of_text(tiny_tokenizer: Any, tiny_llama: Factory) -> None:
    opened = SimpleNamespace(tokenizer=tiny_tokenizer, model_id="tiny")
    found = CAUSAL_LM.samples(opened, None, DataRequest(count=3, window=16))
    assert found.inputs["input_ids"].shape == (3, 16)
    assert found.num_tokens == 48
    bare = SimpleNamespace(tokenizer=None, model_id="tiny")
    with pytest.raises(DataError, match="'tiny' has no tokenizer beside it, and text was given"):
        CAUSAL_LM.samples(bare, None, DataRequest(count=3))
    dummy = CAUSAL_LM.dummy(tiny_llama(), 2, window=9, seed=1)
    assert dummy.inputs["input_ids"].shape == (2, 9)
    assert CAUSAL_LM.dummy(tiny_llama(max_position_embeddings=32), 1).num_tokens == 32


def test_the_metric_is_perplexity(tiny_llama: Factory) -> None:
    model = tiny_llama()
    found = CAUSAL_LM.evaluate(model, plain())
    with torch.no_grad():
        loss = CAUSAL_LM.loss(CAUSAL_LM.output(model, plain().inputs), plain())
    assert found.value == pytest.approx(float(loss.exp()), rel=1e-5)
    assert (found.name, found.higher_is_better, found.samples) == ("perplexity", False, 2)
    assert found.others["tokens"] == 2 * 5
