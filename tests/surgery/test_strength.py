"""A repair is taken as far as held-out samples say, and no more of them are run than that takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunepath.errors import NumericsError
from prunepath.surgery.strength import choose_strength_


def choose(
    loss_at: Callable[[float], float], noise: float
) -> tuple[Any, float, list[tuple[int, float]]]:
    """Choose for a model of one weight, 0 before and 1 after its repair.

    Returns:
        The choice, the weight it left, and (part, weight) of every run.
    """
    model: Any = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    runs: list[tuple[int, float]] = []

    def part(number: int) -> Tensor:
        weight = model.weight.item()
        runs.append((number, weight))
        draws = torch.randn(
            100, generator=torch.Generator().manual_seed(number), dtype=torch.float64
        )
        return loss_at(weight) + noise * weight * draws

    parts = [lambda: part(0), lambda: part(1)]
    chosen = choose_strength_(model, {"weight": torch.zeros(1, 1)}, parts)
    return chosen, model.weight.item(), runs


def test_a_clear_gain_needs_one_part() -> None:
    chosen, weight, runs = choose(lambda weight: 2.0 - weight, noise=0.1)
    assert (chosen.strength, weight) == (1.0, 1.0)
    assert runs == [(0, 1.0), (0, 0.0)]
    assert chosen.taken < chosen.without


def test_a_doubtful_gain_needs_all_parts() -> None:
    chosen, weight, runs = choose(lambda weight: 2.0 - weight, noise=4.0)
    assert (chosen.strength, weight) == (1.0, 1.0)
    assert [number for number, _ in runs] == [0, 0, 1, 1]


def test_half_of_it_where_all_of_it_harms() -> None:
    chosen, weight, runs = choose(lambda weight: 2.0 + (weight - 0.4) ** 2, noise=0.0)
    assert (chosen.strength, weight) == (0.5, 0.5)
    assert (0, 0.0) in runs
    assert runs.count((0, 0.0)) == 1, "the cut model is measured once"


def test_none_of_it_where_it_only_harms() -> None:
    chosen, weight, _ = choose(lambda weight: 2.0 + weight, noise=0.0)
    assert (chosen.strength, weight) == (0.0, 0.0)
    assert chosen.taken == chosen.without == 2.0


def test_a_repair_that_breaks_the_model_is_not_taken() -> None:
    chosen, _, _ = choose(lambda weight: float("nan") if weight == 1 else 2.0 - weight, noise=0.0)
    assert chosen.strength == 0.5


def test_a_broken_cut_is_an_error() -> None:
    with pytest.raises(NumericsError, match="the cut model's loss on held-out samples is not fin"):
        choose(lambda weight: 1.0 if weight else float("nan"), noise=0.0)
