"""Budgets as text: every unit, and every message."""

from __future__ import annotations

import pytest

from prunepath.allocation.budget import Budget
from prunepath.errors import BudgetError

ABSOLUTE = {
    ("params", "95M"): 95e6,
    ("params", "95m"): 95e6,
    ("params", "1.5B"): 1.5e9,
    ("params", "1.5G"): 1.5e9,
    ("params", "900k"): 9e5,
    ("params", "94143999"): 94143999,
    ("params", "1e6"): 1e6,
    ("macs", "12G"): 12e9,
    ("macs", "0.5T"): 5e11,
    ("macs", " 12 G "): 12e9,
    ("memory", "200MB"): 200e6,
    ("memory", "200 MiB"): 200 * 2**20,
    ("memory", ".5GB"): 5e8,
    ("memory", "1GiB"): 2**30,
    ("memory", "3KiB"): 3072,
    ("memory", "3kB"): 3000,
    ("memory", "4096B"): 4096,
    ("latency", "12ms"): 0.012,
    ("latency", "0.5s"): 0.5,
    ("latency", "800us"): 8e-4,
}
FRACTIONS = {"70%": 0.7, "100%": 1.0, "0.5 %": 0.005, "62.5%": 0.625}
REFUSED = {
    ("params", "70"): r"--params 70 has no unit; did you mean 70% or 70M\? Write for example 70%",
    ("params", "0.7"): r"--params 0.7 has no unit; did you mean 0.7% or 0.7M\?",
    ("macs", "60"): r"--macs 60 has no unit; did you mean 60% or 60",
    ("memory", "200"): r"--memory 200 has no unit",
    ("latency", "12"): r"--latency 12 has no unit",
    ("params", "0%"): r"must be above 0% and at most 100%; write for example 70% or 95M",
    ("params", "120%"): r"--params 120% keeps that much of the dense model",
    ("latency", "101%"): r"at most 100%; write for example 80% or 12ms",
    ("params", "0M"): r"--params 0M must be above zero",
    ("params", "95MB"): r"--params 95MB has an unknown unit; use % or one of K, M, G, B",
    ("memory", "95M"): r"--memory 95M has an unknown unit; use % or one of B, KB, MB, GB, KIB",
    ("latency", "3h"): r"--latency 3h has an unknown unit; use % or one of US, MS, S",
    ("params", "many"): r"--params many is not a size; write for example 70% or 95M",
    ("params", ""): r"is not a size",
    ("params", "-70%"): r"is not a size",
    ("params", "7,5M"): r"is not a size",
    ("params", "nan%"): r"is not a size",
    ("flops", "70%"): r"unknown budget 'flops'; use one of params, macs, memory, latency",
}


@pytest.mark.parametrize(("metric", "text"), ABSOLUTE)
def test_absolute(metric: str, text: str) -> None:
    budget = Budget.parse(metric, text)
    assert budget.limit == pytest.approx(ABSOLUTE[metric, text], rel=1e-12)
    assert budget.fraction is budget.ratio is None


@pytest.mark.parametrize("metric", ["params", "macs", "memory", "latency"])
@pytest.mark.parametrize("text", FRACTIONS)
def test_fraction(metric: str, text: str) -> None:
    budget = Budget.parse(metric, text)
    assert budget.fraction == pytest.approx(FRACTIONS[text], rel=1e-12)
    assert budget.resolve(dense=200.0, block_params=1) == pytest.approx(200 * FRACTIONS[text])


@pytest.mark.parametrize(("metric", "text"), REFUSED)
def test_refused(metric: str, text: str) -> None:
    with pytest.raises(BudgetError, match=REFUSED[metric, text]):
        Budget.parse(metric, text)


@pytest.mark.parametrize("ratio", [1.3, 1.0, -0.1, 30.0, float("nan")])
def test_ratio_refused(ratio: float) -> None:
    message = rf"--ratio {ratio:g} is the fraction .* at least 0 and below 1; for example --ratio"
    with pytest.raises(BudgetError, match=message):
        Budget.from_ratio(ratio)


def test_ratio_is_of_the_block_parameters() -> None:
    assert Budget.from_ratio(0.25).resolve(dense=1000, block_params=800) == 800
    assert Budget.from_ratio(0).resolve(dense=1000, block_params=800) == 1000


def test_above_dense() -> None:
    message = r"params 2M is above the dense model, which has 1M; ask for less, nothing needs to be"
    with pytest.raises(BudgetError, match=message):
        Budget.parse("params", "2M").resolve(dense=1e6, block_params=1)
    assert Budget.parse("params", "1M").resolve(dense=1e6, block_params=1) == 1e6


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (Budget.parse("params", "70%"), "params 70%"),
        (Budget.parse("params", "95M"), "params 95M"),
        (Budget.parse("memory", "200MB"), "memory 200MB"),
        (Budget.parse("latency", "12ms"), "latency 12 ms"),
        (Budget.from_ratio(0.3), "ratio 0.3"),
    ],
)
def test_says_what_was_asked(budget: Budget, text: str) -> None:
    assert str(budget) == text
