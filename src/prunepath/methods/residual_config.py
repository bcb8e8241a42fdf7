"""Settings of the residual-variance family, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass, field

from prunepath.errors import RequestError
from prunepath.methods.method import MethodConfig
from prunepath.methods.standardise import STANDARDS
from prunepath.statistics.repairs import REPAIRS

__all__ = ["ResidualConfig"]

_CHOICES = {
    "repair": REPAIRS,
    "metric": ("energy", "wanda", "wifv"),
    "standardise": STANDARDS,
}
_METRIC_REPAIR = {"wanda": "none", "wifv": "bias"}


@dataclass(frozen=True, kw_only=True)
class ResidualConfig(MethodConfig):
    """Settings of `residual`.

    Raises:
        RequestError: a value that is unknown, out of range, or contradicts another.
    """

    repair: str = field(
        default="linear",
        metadata={"help": "what a refit may move: none, bias, linear or linear+bias"},
    )
    metric: str = field(
        default="energy",
        metadata={"help": "energy (squared error), wanda (repair none) or wifv (repair bias)"},
    )
    standardise: str = field(
        default="none",
        metadata={"help": "none, relative (parts of the output's energy) or zscore (an order)"},
    )
    rounds: int = field(
        default=48,
        metadata={"help": "energy: rounds to empty a group in; 1: each unit by itself"},
    )
    damping: float = field(
        default=1e-2,
        metadata={"help": "linear: ridge, as a fraction of the median second moment"},
    )

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise RequestError(
                    f"unknown {name} '{getattr(self, name)}' of the method 'residual'; use one of "
                    f"{', '.join(allowed)}"
                )
        fits = _METRIC_REPAIR.get(self.metric, self.repair)
        if self.repair != fits:
            raise RequestError(
                f"metric '{self.metric}' scores columns whose loss is repaired by '{fits}', and "
                f"repair is '{self.repair}'; set repair={fits}, or metric=energy"
            )
        if self.rounds < 1:
            raise RequestError(f"rounds is {self.rounds}; it must be at least 1")
        if not 0 < self.damping < float("inf"):
            raise RequestError(f"damping is {self.damping}; it must be above 0")
