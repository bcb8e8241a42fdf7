"""Settings of OPTIN, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass, field

from prunepath.errors import RequestError
from prunepath.methods.standardise import ScoreConfig

__all__ = ["AFTER_SCORING", "OptinConfig"]

AFTER_SCORING = ("lambda_kd", "md_norm", "horizon", "legacy", "standardise")
"""Settings that say how stored scores become damages; all others decide what is measured."""

_CHOICES = {
    "mode": ("hybrid", "gn", "exact"),
    "md_norm": ("sum", "mean"),
    "legacy": ("none", "language", "vision"),
}


@dataclass(frozen=True, kw_only=True)
class OptinConfig(ScoreConfig):
    """Settings of OPTIN.

    Raises:
        RequestError: a value that is unknown or out of range.
    """

    mode: str = field(
        default="hybrid",
        metadata={
            "help": "exact (every unit removed once), gn (estimated from random probes), or hybrid "
            "(estimated; heads, and channels where the cut will be, removed once)"
        },
    )
    tokens: int = field(
        default=768, metadata={"help": "rows of every feature that are compared; 0: all"}
    )
    samples: int = field(
        default=32, metadata={"help": "calibration samples that are scored, as many as there are"}
    )
    probes: int = field(
        default=24, metadata={"help": "backward passes through the model the estimates may take"}
    )
    cut: float = field(
        default=0.6, metadata={"help": "share of MACs kept where hybrid looks closely"}
    )
    exact_share: float = field(
        default=0.005, metadata={"help": "share of the units nearest to that cut hybrid removes"}
    )
    candidates_tokens: int = field(
        default=0,
        metadata={
            "help": "rows of one pass that removals are folded into; 0: 32768, on a CPU 4096"
        },
    )
    lambda_kd: float = field(
        default=0.1,
        metadata={"help": "weight of the answer's distance, both terms at the same median"},
    )
    md_norm: str = field(
        default="sum", metadata={"help": "sum or mean over the features behind a unit"}
    )
    horizon: int = field(
        default=0, metadata={"help": "count only so many features behind a unit; 0: all"}
    )
    legacy: str = field(
        default="none",
        metadata={"help": "the released code's factors, to compare: language, vision or none"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise RequestError(
                    f"unknown {name} '{getattr(self, name)}' of the method 'optin'; use "
                    f"{' or '.join(allowed)}"
                )
        if self.tokens < 0 or self.tokens == 1:
            raise RequestError(
                f"tokens is {self.tokens}; rows are compared with each other, so give at least 2, "
                "or 0 for all of them"
            )
        for name in ("samples", "probes"):
            if getattr(self, name) < 1:
                raise RequestError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.candidates_tokens < 0:
            raise RequestError(
                f"candidates_tokens is {self.candidates_tokens}; give a number of rows, or 0 for "
                "what suits the device"
            )
        if not 0 < self.cut < 1:
            raise RequestError(
                f"cut is {self.cut}; it is the share of MACs that is kept, so give a number "
                "between 0 and 1, like 0.6"
            )
        if not 0 <= self.exact_share <= 1:
            raise RequestError(
                f"exact_share is {self.exact_share}; it is a share of all units, so give a number "
                "from 0 to 1 (0.005 removes one of two hundred)"
            )
        if not 0 <= self.lambda_kd < float("inf"):
            raise RequestError(
                f"lambda_kd is {self.lambda_kd}; it is a weight, so give 0 or more (0.1 lets the "
                "answer count for a tenth of the features)"
            )
        if self.horizon < 0:
            raise RequestError(
                f"horizon is {self.horizon}; give a number of features, or 0 for all of them"
            )
        if self.legacy != "none" and self.md_norm != "sum":
            raise RequestError(
                f"legacy '{self.legacy}' repeats the released code, which sums over features, and "
                f"md_norm is '{self.md_norm}'; leave md_norm at 'sum'"
            )
