"""Budgets: what the user may spend, read from text and resolved against the dense model."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from prunepath.errors import BudgetError
from prunepath.structure.cost import Cost

__all__ = ["METRICS", "Budget", "metric_value"]

METRICS = ("params", "macs", "memory", "latency")

_SCALES: dict[str, dict[str, float]] = {
    "params": {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9},
    "macs": {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12},
    "memory": {
        **{"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9},
        **{"KIB": 2**10, "MIB": 2**20, "GIB": 2**30},
    },
    "latency": {"US": 1e-6, "MS": 1e-3, "S": 1.0},
}
_EXAMPLES = {
    "params": "70% or 95M",
    "macs": "60% or 12G",
    "memory": "70% or 200MB",
    "latency": "80% or 12ms",
}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """At most this much of one metric.

    Args:
        metric: `"params"`, `"macs"`, `"memory"` (weights plus KV cache at the stated sequence
            length, in bytes) or `"latency"` (seconds).
        limit: absolute limit in the metric's base unit, or None with `fraction`.
        fraction: part of the dense model that may be kept, in (0, 1].
        ratio: part of the block parameters to remove, in [0, 1); as papers state it.

    Example:
        >>> Budget.parse("params", "95M").limit
        95000000.0
        >>> Budget.parse("macs", "60%").fraction
        0.6
    """

    metric: str
    limit: float | None = None
    fraction: float | None = None
    ratio: float | None = None

    @classmethod
    def parse(cls, metric: str, text: str) -> Budget:
        """Read `"70%"`, `"95M"`, `"200MB"` or `"12ms"`.

        Raises:
            BudgetError: no unit, an unknown unit, or a percentage out of range.
        """
        if metric not in METRICS:
            raise BudgetError(f"unknown budget '{metric}'; use one of {', '.join(METRICS)}")
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][0-9]+)?)\s*(%|[a-zA-Z]*)\s*", text)
        example = _EXAMPLES[metric]
        if match is None:
            raise BudgetError(f"--{metric} {text} is not a size; write for example {example}")
        number, unit = float(match[1]), match[2].upper()
        if unit == "%":
            if not 0 < number <= 100:
                raise BudgetError(
                    f"--{metric} {text} keeps that much of the dense model, so it must be above "
                    f"0% and at most 100%; write for example {example}"
                )
            return cls(metric=metric, fraction=number / 100)
        scales = _SCALES[metric]
        if unit not in scales and unit:
            units = ", ".join(u for u in scales if u)
            raise BudgetError(f"--{metric} {text} has an unknown unit; use % or one of {units}")
        if not unit and ("" not in scales or number < 1000):
            usual = {"memory": "MB", "latency": "ms"}.get(metric, "M")
            raise BudgetError(
                f"--{metric} {text} has no unit; did you mean {match[1]}% or {match[1]}{usual}? "
                f"Write for example {example}"
            )
        if number <= 0:
            raise BudgetError(f"--{metric} {text} must be above zero; for example {example}")
        return cls(metric=metric, limit=number * scales[unit])

    @classmethod
    def from_ratio(cls, ratio: float) -> Budget:
        """Remove this fraction of the block parameters.

        Raises:
            BudgetError: not in [0, 1).
        """
        if not 0 <= ratio < 1:
            raise BudgetError(
                f"--ratio {ratio:g} is the fraction of block parameters to remove, so it must be "
                "at least 0 and below 1; for example --ratio 0.3"
            )
        return cls(metric="params", ratio=ratio)

    def resolve(self, dense: float, block_params: int) -> float:
        """The absolute limit in the metric's base unit.

        Args:
            dense: the dense model's value of the metric.
            block_params: parameters of all layers, for a ratio.

        Raises:
            BudgetError: the limit is above the dense model.
        """
        if self.ratio is not None:
            return dense - self.ratio * block_params
        if self.fraction is not None:
            return dense * self.fraction
        assert self.limit is not None
        if self.limit > dense:
            raise BudgetError(
                f"the budget {self.metric} {describe(self.metric, self.limit)} is above the dense "
                f"model, which has {describe(self.metric, dense, towards='down')}; ask for less, "
                "nothing needs to be cut"
            )
        return self.limit

    def __str__(self) -> str:
        if self.ratio is not None:
            return f"ratio {self.ratio:g}"
        if self.fraction is not None:
            return f"{self.metric} {100 * self.fraction:g}%"
        assert self.limit is not None
        return f"{self.metric} {describe(self.metric, self.limit)}"


def metric_value(cost: Cost, metric: str, sequence_length: int) -> float:
    """One metric of a cost; latency needs a table and is not counted here."""
    if metric == "params":
        return cost.params
    if metric == "macs":
        return cost.macs
    if metric == "memory":
        return cost.memory_bytes(sequence_length)
    raise BudgetError(f"'{metric}' is not counted from shapes")


def describe(
    metric: str, value: float, *, towards: Literal["nearest", "up", "down"] = "nearest"
) -> str:
    """A value with its unit, four significant digits.

    Args:
        metric: whose unit.
        value: in the base unit.
        towards: `"up"` for a number that is asked for again, so that rounding cannot make it too
            small, and `"down"` for one that may not be exceeded.
    """
    if value <= 0:
        return f"{value:g}"
    step = 10.0 ** (math.floor(math.log10(value)) - 3)
    ways: dict[str, Callable[[float], int]] = {
        "nearest": round,
        "up": math.ceil,
        "down": math.floor,
    }
    value = ways[towards](value / step) * step
    if metric == "latency":
        return f"{value * 1e3:.4g} ms"
    unit = "B" if metric == "memory" else ""
    for scale, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.4g}{letter}{unit}"
    return f"{value:.4g}{unit}"
