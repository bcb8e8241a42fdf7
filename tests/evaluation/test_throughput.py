"""Samples per second: the task's own samples, in turns, and the numbers are medians."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from prunepath.errors import RequestError
from prunepath.evaluation import compare_throughput, measure_throughput, throughput
from prunepath.tasks.causal_lm import CAUSAL_LM

Factory = Callable[..., Any]


def test_measures_what_it_says(tiny_llama: Factory, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama()
    shapes: list[tuple[int, ...]] = []
    original = CAUSAL_LM.output

    def watched(model: Any, inputs: Any) -> Any:
        shapes.append(tuple(inputs["input_ids"].shape))
        return original(model, inputs)

    monkeypatch.setattr(CAUSAL_LM, "output", watched)
    got = measure_throughput(model, CAUSAL_LM, batch_size=3, window=8, repeats=2)
    assert shapes == [(3, 8)] * 3, "a warm-up and two timings"
    assert (got.batch_size, got.repeats) == (3, 2)
    assert got.samples_per_second > 0
    assert got.device.startswith("cpu, ")


def test_models_take_turns_and_the_median_counts(
    tiny_llama: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"one": tiny_llama(), "two": tiny_llama(seed=1)}
    turns: list[int] = []
    monkeypatch.setattr(CAUSAL_LM, "output", lambda model, _: turns.append(id(model)))
    clock = iter([0, 9, 0, 9, 0, 1, 0, 2, 0, 4, 0, 5, 0, 2, 0, 1])  # a warm-up of both, then three
    monkeypatch.setattr(throughput, "_now", lambda _: next(clock))
    got = compare_throughput(models, CAUSAL_LM, batch_size=2, window=4, repeats=3)
    assert turns == [id(models["one"]), id(models["two"])] * 4
    assert got["one"].samples_per_second == 2 / 2
    assert got["two"].samples_per_second == 2 / 2


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"repeats": 0}])
def test_numbers_out_of_range(tiny_llama: Factory, wrong: dict[str, int]) -> None:
    with pytest.raises(RequestError, match="=0 was asked for; use at least 1"):
        measure_throughput(tiny_llama(), CAUSAL_LM, **wrong)
