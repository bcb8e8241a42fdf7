"""Perplexity equals the plain definition, whatever the batches, and names what goes wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from prunepath.data import TokenWindows, token_windows
from prunepath.errors import NumericsError, RequestError
from prunepath.evaluation import perplexity
from prunepath.evaluation.perplexity import token_losses

Factory = Callable[..., Any]


@pytest.fixture
def windows(tiny_tokenizer: Any) -> TokenWindows:
    return token_windows(None, tiny_tokenizer, window=24, count=5)


def test_equals_the_definition(tiny_llama: Factory, windows: TokenWindows) -> None:
    model = tiny_llama()
    with torch.no_grad():
        logits = model(windows.ids).logits.double()
    log_probs = logits.log_softmax(-1)[:, :-1]
    nll = -log_probs.gather(-1, windows.ids[:, 1:, None]).mean().item()
    got = perplexity(model, windows)
    assert got.nll == pytest.approx(nll, rel=1e-6)
    assert got.value == pytest.approx(math.exp(nll), rel=1e-6)
    assert (got.num_tokens, got.window) == (5 * 23, 24)


def test_agrees_with_the_loss_of_transformers(tiny_llama: Factory, windows: TokenWindows) -> None:
    model = tiny_llama()
    with torch.no_grad():
        loss = model(windows.ids, labels=windows.ids).loss.item()
    assert perplexity(model, windows).nll == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("batch_size", [2, 5, 64])
def test_batches_do_not_matter(tiny_llama: Factory, windows: TokenWindows, batch_size: int) -> None:
    model = tiny_llama()
    one = perplexity(model, windows).nll
    assert perplexity(model, windows, batch_size=batch_size).nll == pytest.approx(one, rel=1e-6)


def test_positions_at_a_time_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 19, 7, generator=generator)
    targets = torch.randint(7, (2, 19), generator=generator)
    at_once = token_losses(logits, targets)
    monkeypatch.setitem(token_losses.__globals__, "_POSITIONS", 4)
    assert torch.allclose(token_losses(logits, targets), at_once, rtol=1e-6)
    assert at_once.dtype == torch.float64


def test_model_is_left_as_it_was(tiny_llama: Factory, windows: TokenWindows) -> None:
    model = tiny_llama(attention_dropout=0.5)
    model.train()
    model.lm_head.eval()
    first, second = perplexity(model, windows), perplexity(model, windows)
    assert first == second, "dropout was active"
    assert model.training
    assert not model.lm_head.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_nan_names_the_window(tiny_llama: Factory, windows: TokenWindows) -> None:
    model = tiny_llama()
    unused = next(t for t in range(300) if not (windows.ids == t).any())
    windows.ids[3, 2] = unused
    with torch.no_grad():
        model.model.embed_tokens.weight[unused] = torch.nan
    message = "the loss of window 3 of packaged .* is nan; check the weights"
    for batch_size in (1, 2, 5):
        with pytest.raises(NumericsError, match=message):
            perplexity(model, windows, batch_size=batch_size)


def test_batch_size_is_checked(tiny_llama: Factory, windows: TokenWindows) -> None:
    with pytest.raises(RequestError, match="batch_size=0 was asked for; use at least 1"):
        perplexity(tiny_llama(), windows, batch_size=0)


def test_progress_sees_every_batch(tiny_llama: Factory, windows: TokenWindows) -> None:
    seen: list[Any] = []

    class Listener:
        def track(self, items: Any, label: str, total: int | None = None) -> Any:
            seen.append((label, total))
            for item in items:
                seen.append(tuple(item.inputs["input_ids"].shape))
                yield item

        def note(self, message: str) -> None:
            raise AssertionError(message)

    perplexity(tiny_llama(), windows, batch_size=2, progress=Listener())
    assert seen == [("perplexity", 3), (2, 24), (2, 24), (1, 24)]
