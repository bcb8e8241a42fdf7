"""Rules by which a budget chooses among the steps of a path, with the settings they take.

`order` and `knapsack` read the path alone. The others run the model on the samples beside it, with
the gates of a selection closed, so that a candidate costs a forward pass and not a surgery.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from prunepath.errors import RequestError
from prunepath.settings import Settings

__all__ = [
    "MEASURING",
    "RULES",
    "CurvesSettings",
    "EvolutionSettings",
    "SharesSettings",
    "Stage",
    "require_rule",
    "rule_settings",
]

RULES = ("order", "knapsack", "curves", "evolution", "shares")
MEASURING = ("curves", "evolution", "shares")
"""Rules that run the model."""

_WHAT = {
    "order": "damage per cost, smaller budgets keep subsets",
    "knapsack": "least sum of damages, of two kinds",
    "curves": "least sum of measured distances, each sub-layer cut alone",
    "evolution": "measured, by mutation and tournament",
    "shares": "by how much the loss feels noise in each sub-layer",
}


@dataclass(frozen=True, kw_only=True)
class _Plain(Settings):
    owner: ClassVar[str] = "this rule"


@dataclass(frozen=True, kw_only=True)
class CurvesSettings(Settings):
    """Settings of the rule `curves`.

    Raises:
        RequestError: a value that is unknown or out of range.
    """

    owner: ClassVar[str] = "the rule 'curves'"

    levels: int = field(
        default=5,
        metadata={"help": "sizes of a sub-layer that are measured, its own and its least included"},
    )
    samples: int = field(
        default=2, metadata={"help": "samples beside the path that are run; 0: all"}
    )
    worst: bool = field(
        default=False,
        metadata={"help": "distance of the worst sample, not of the mean one"},
    )

    def __post_init__(self) -> None:
        _require_at_least(self, levels=2, samples=0)


@dataclass(frozen=True, kw_only=True)
class EvolutionSettings(Settings):
    """Settings of the rule `evolution`.

    Raises:
        RequestError: a value that is out of range, or stages that are none.
    """

    owner: ClassVar[str] = "the rule 'evolution'"

    iterations: int = field(
        default=3, metadata={"help": "times the level step is halved, and once (paper: 4)"}
    )
    generations: int = field(default=4, metadata={"help": "of each iteration (paper: 50)"})
    offspring: int = field(default=8, metadata={"help": "of each generation (paper: 128)"})
    step: float = field(
        default=0.125, metadata={"help": "part of a sub-layer that one level is at first"}
    )
    stages: str = field(
        default="1:3,4:1",
        metadata={
            "help": "samples:survivors of each round of a tournament; 0 samples: all "
            "(paper: 2,048, 16,384 and 131,072 tokens with 16, 4 and 2)"
        },
    )

    def __post_init__(self) -> None:
        _require_at_least(self, iterations=1, generations=1, offspring=1)
        if not 0 < self.step <= 1:
            raise RequestError(
                f"step is {self.step:g}; it is a part of a sub-layer, above 0 and at most 1"
            )
        _ = self.rounds

    @property
    def rounds(self) -> tuple[Stage, ...]:
        """The rounds of a tournament."""
        found = []
        for text in self.stages.split(","):
            match = re.fullmatch(r"\s*(\d+)\s*:\s*([1-9]\d*)\s*", text)
            if match is None:
                raise RequestError(
                    f"stages is '{self.stages}'; write samples:survivors of each round, for "
                    "example 1:3,4:1"
                )
            found.append(Stage(int(match[1]), int(match[2])))
        return tuple(found)


@dataclass(frozen=True)
class Stage:
    """A round of a tournament.

    Args:
        samples: samples that are run; 0: all there are.
        survivors: candidates that go on.
    """

    samples: int
    survivors: int


@dataclass(frozen=True, kw_only=True)
class SharesSettings(Settings):
    """Settings of the rule `shares`.

    Raises:
        RequestError: a value that is unknown or out of range.
    """

    owner: ClassVar[str] = "the rule 'shares'"

    samples: int = field(
        default=2, metadata={"help": "samples beside the path that are run; 0: all"}
    )
    epsilon: float = field(default=1e-3, metadata={"help": "standard deviation of the noise"})
    spread: float = field(
        default=0.1,
        metadata={"help": "how far above the mean part any sub-layer may be cut"},
    )
    loss: str = field(
        default="kl",
        metadata={"help": "kl (labels drawn from the dense model) or task (the samples' own)"},
    )

    def __post_init__(self) -> None:
        _require_at_least(self, samples=0)
        if not self.epsilon > 0:
            raise RequestError(f"epsilon is {self.epsilon:g}; it must be above 0")
        if not 0 < self.spread <= 1:
            raise RequestError(f"spread is {self.spread:g}; it must be above 0 and at most 1")
        if self.loss not in ("kl", "task"):
            raise RequestError(f"unknown loss '{self.loss}' of the rule 'shares'; use kl or task")


_SETTINGS: dict[str, type[Settings]] = {
    "curves": CurvesSettings,
    "evolution": EvolutionSettings,
    "shares": SharesSettings,
}


def rule_settings(rule: str, settings: Mapping[str, Any]) -> Settings:
    """The settings of a rule, checked.

    Args:
        rule: one of `RULES`.
        settings: those that differ from the usual.

    Raises:
        RequestError: a setting the rule does not have, or a value it does not take.

    Example:
        >>> rule_settings("curves", {"levels": 9}).to_dict()
        {'levels': 9, 'samples': 2, 'worst': False}
    """
    if rule not in _SETTINGS and settings:
        raise RequestError(
            f"the rule '{rule}' has no settings, and {', '.join(settings)} was given; leave it "
            f"out, or use one of the rules {', '.join(_SETTINGS)}"
        )
    return _SETTINGS.get(rule, _Plain).from_dict(settings)


def require_rule(rule: str, layout: str, metric: str) -> None:
    """Refuse a rule that does not exist, or that cannot do what is asked of it.

    Raises:
        RequestError: what was asked, and which rule does it.
    """
    if rule not in RULES:
        known = [f"'{name}' ({_WHAT[name]})" for name in RULES]
        raise RequestError(f"unknown rule '{rule}'; use {', '.join(known[:-1])} or {known[-1]}")
    if rule != "order" and metric == "latency":
        raise RequestError(
            f"the rule '{rule}' needs costs that add up unit by unit, and measured latency "
            "does not; use --macs, --params or --memory, or --rule order"
        )
    if rule in MEASURING and layout == "uniform":
        raise RequestError(
            f"the rule '{rule}' gives every sub-layer a size of its own, and the layout 'uniform' "
            "keeps all layers alike; use --layout per-layer, or --rule order"
        )


def _require_at_least(settings: Settings, **least: int) -> None:
    for name, value in least.items():
        if getattr(settings, name) < value:
            raise RequestError(f"{name} is {getattr(settings, name)}; it must be at least {value}")
