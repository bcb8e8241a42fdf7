"""Settings of SPP, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from prunepath.errors import RequestError
from prunepath.methods.method import MethodConfig

__all__ = ["SppConfig"]

_CHOICES = {
    "dynamics": ("surrogate", "coupled", "authors"),
    "curvature": ("refit", "fisher"),
    "solver": ("elimination", "flow"),
}


@dataclass(frozen=True, kw_only=True)
class SppConfig(MethodConfig):
    """Settings of SPP.

    Raises:
        RequestError: a value that is unknown, out of range, or contradicts another.
    """

    dynamics: str = field(
        default="surrogate",
        metadata={"help": "surrogate (statistics only), coupled (real loss) or authors"},
    )
    curvature: str = field(
        default="refit",
        metadata={"help": "surrogate: refit (cost of a removal after repair) or fisher (without)"},
    )
    solver: str = field(
        default="elimination",
        metadata={
            "help": "surrogate: elimination (greedy) or flow (Bregman dynamics, fisher only)"
        },
    )
    rounds: int = field(default=48, metadata={"help": "refit: rounds to empty a group in"})
    damping: float = field(
        default=1e-2, metadata={"help": "refit: ridge, as a fraction of the median second moment"}
    )
    correction: float = field(
        default=0.5,
        metadata={"help": "refit: exponent of measured over factored curvature of a unit"},
    )
    pooling: bool = field(
        default=True,
        metadata={
            "help": "refit, losses with a term per sample: units of a group differ in measured "
            "curvature as far as that is more than chance"
        },
    )
    doubt: float = field(
        default=2.0,
        metadata={
            "help": "elimination, units without a consumer: standard errors that their "
            "interactions lose; 0: none"
        },
    )
    coupling: float = field(
        default=1.0, metadata={"help": "nu, in units of 1 / median curvature of a group"}
    )
    threshold: float = field(default=5.0, metadata={"help": "lambda: dual value of an entry"})
    kappa: float = field(default=1.0, metadata={"help": "damping of the dynamics"})
    two_sided: bool = field(default=False, metadata={"help": "let units enter at -lambda as well"})
    step: float = field(default=0.1, metadata={"help": "step length as a fraction of nu"})
    max_steps: int = field(default=500, metadata={"help": "steps of the dynamics"})
    guard: float = field(
        default=2.0, metadata={"help": "coupled: largest loss, as a multiple of the dense level"}
    )
    batch_windows: int = field(default=4, metadata={"help": "samples in one forward pass"})
    batches_per_step: int = field(
        default=0, metadata={"help": "batches per step, in a fixed cycle; 0: all of them"}
    )
    save_every: int = field(default=10, metadata={"help": "steps between saved states"})
    learning_rate: float = field(default=1e-2, metadata={"help": "authors: step of AdamW"})
    poll_every: int = field(default=10, metadata={"help": "authors: steps between polls"})

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise RequestError(
                    f"unknown {name} '{getattr(self, name)}' of the method 'spp'; use "
                    f"{' or '.join(allowed)}"
                )
        for name in ("damping", "coupling", "kappa", "step", "learning_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise RequestError(f"{name} is {getattr(self, name)}; it must be above 0")
        for name in ("rounds", "max_steps", "batch_windows", "save_every", "poll_every"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.batches_per_step < 0:
            raise RequestError(
                f"batches_per_step is {self.batches_per_step}; give a count, or 0 for all of them"
            )
        if not 0 <= self.doubt < float("inf"):
            raise RequestError(f"doubt is {self.doubt}; it must be 0 or above")
        if self.step > 1:
            raise RequestError(
                f"step is {self.step}; above 1 a step is longer than the coupling allows, use 0.1"
            )
        if self.threshold * min(1.0, self.kappa) < 2:
            raise RequestError(
                f"threshold is {self.threshold} at kappa {self.kappa}; below "
                f"{2 / min(1.0, self.kappa):g} units enter while the gates still settle, and the "
                "order is compressed"
            )
        if not self.guard > 1:
            raise RequestError(f"guard is {self.guard}; it is a multiple of the dense loss above 1")
        if self.solver == "flow" and self.curvature == "refit":
            raise RequestError(
                "solver 'flow' follows a curvature block that stays as it is, and curvature "
                "'refit' changes with every repair; use curvature='fisher' with it, or "
                "solver='elimination'"
            )

    @property
    def bregman_settings(self) -> dict[str, Any]:
        """What the flow on a quadratic model takes."""
        names = ("coupling", "threshold", "kappa", "step", "max_steps", "two_sided")
        return {name: getattr(self, name) for name in names}
