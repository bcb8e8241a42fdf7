"""Speed is measured over the right work, in turns, and the numbers are medians."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from prunepath.errors import RequestError
from prunepath.evaluation import compare_speed, measure_speed, speed

Factory = Callable[..., Any]


def test_measures_what_it_says(tiny_llama: Factory) -> None:
    got = measure_speed(tiny_llama(), sequence_length=16, new_tokens=2, repeats=2, batch_size=3)
    assert got.prefill_tokens_per_second > 0
    assert got.decode_tokens_per_second > 0
    assert (got.batch_size, got.sequence_length, got.new_tokens, got.repeats) == (3, 16, 2, 2)
    assert got.device.startswith("cpu, ")


def test_the_work_is_one_prefill_and_cached_steps(tiny_llama: Factory) -> None:
    model = tiny_llama()
    calls: list[tuple[tuple[int, ...], int, int]] = []
    forward = model.forward

    def spy(**inputs: Any) -> Any:
        past = inputs.get("past_key_values")
        length = 0 if past is None else past.get_seq_length()
        output = forward(**inputs)
        calls.append((tuple(inputs["input_ids"].shape), length, output.logits.shape[1]))
        return output

    # The last logits only are asked for where `forward` can do that.
    spy.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    model.forward = spy
    measure_speed(model, sequence_length=16, new_tokens=2, repeats=1)
    once = [((1, 16), 0, 1), ((1, 1), 16, 1), ((1, 1), 17, 1)]
    assert calls == once * 2, "a warm-up and one timing"


def test_decoding_agrees_with_generate(
    tiny_llama: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_llama(initializer_range=0.5)
    prompt = speed._prompt("model", model, 1, 16, 4)
    tokens: list[int] = []
    forward = model.forward

    def spy(**inputs: Any) -> Any:
        output = forward(**inputs)
        tokens.append(int(output.logits[0, -1].argmax()))
        return output

    monkeypatch.setattr(model, "forward", spy)
    with torch.no_grad():
        speed._time_once(model, prompt, 4)
    monkeypatch.undo()
    expected = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=5, do_sample=False
    )
    assert tokens == expected[0, 16:].tolist()


def test_models_take_turns_and_the_median_counts(
    tiny_llama: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"dense": tiny_llama(), "small": tiny_llama(intermediate_size=16)}
    order: list[str] = []
    # Per model: a warm-up that must not count, then three timings of (prefill, decode) seconds.
    seconds = {
        "dense": iter([(9.0, 9.0), (1.0, 4.0), (50.0, 50.0), (2.0, 8.0)]),
        "small": iter([(9.0, 9.0), (0.5, 2.0), (0.5, 2.0), (25.0, 25.0)]),
    }

    def timed(model: Any, prompt: Any, new_tokens: int) -> tuple[float, float]:
        name = next(name for name, candidate in models.items() if candidate is model)
        order.append(name)
        return next(seconds[name])

    monkeypatch.setattr(speed, "_time_once", timed)
    got = compare_speed(models, sequence_length=100, new_tokens=8, repeats=3)
    assert order == ["dense", "small"] * 4
    assert list(got) == ["dense", "small"]
    assert got["dense"].prefill_tokens_per_second == 100 / 2.0
    assert got["dense"].decode_tokens_per_second == 8 / 8.0
    assert got["small"].prefill_tokens_per_second == 100 / 0.5
    assert got["small"].decode_tokens_per_second == 8 / 2.0


@pytest.mark.parametrize("name", ["batch_size", "sequence_length", "new_tokens", "repeats"])
def test_numbers_below_one(tiny_llama: Factory, name: str) -> None:
    with pytest.raises(RequestError, match=f"{name}=0 was asked for; use at least 1"):
        measure_speed(tiny_llama(), **{name: 0})


def test_longer_than_the_context(tiny_llama: Factory) -> None:
    with pytest.raises(RequestError, match="the context of model is 256 tokens; use a shorter"):
        measure_speed(tiny_llama(), sequence_length=250, new_tokens=7)


def test_modes_are_restored(tiny_llama: Factory) -> None:
    model = tiny_llama().train()
    measure_speed(model, sequence_length=4, new_tokens=1, repeats=1)
    assert model.training
