"""Scores of different groups brought to one scale: parts of a group, or z-scores (FLAP).

A damage compares units of all groups only as far as its unit does. Where it does not (norms of
weights, errors of single maps), each group can be measured by itself first:

- `relative`: the part a unit has of its group's sum; ordered by cost as damages are.
- `zscore`: (s - mean) / standard deviation over the group, z-scores of all groups in one order
  (FLAP, arXiv 2312.11983). They are an order already, so costs only count against a budget: FLAP's
  cost of 1 per neuron and 512/3 per head is the cost of a unit in parameters, which allocation
  counts exactly. What a z-score knows of a group is the shape of its distribution alone.

FLAP squares the scores of attention first and averages those of single columns; that is the metric
`wifv` of `residual`, and not done here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from prunepath.errors import RequestError
from prunepath.methods.method import FloatArray, MethodConfig, Ranking

__all__ = [
    "AFTER_SCORING",
    "STANDARDS",
    "ScoreConfig",
    "above_least",
    "relative",
    "require_standard",
    "standardised",
    "zscore",
]

STANDARDS = ("none", "relative", "zscore")
AFTER_SCORING = ("standardise",)


def require_standard(standardise: str) -> None:
    """Refuse a way to standardise that does not exist.

    Raises:
        RequestError: naming those there are.
    """
    if standardise not in STANDARDS:
        raise RequestError(
            f"unknown standardise '{standardise}'; use one of {', '.join(STANDARDS)}"
        )


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(MethodConfig):
    """What methods whose damage is a score of each unit have in common.

    Raises:
        RequestError: an unknown way to standardise.
    """

    standardise: str = field(
        default="none",
        metadata={"help": "within each group: none, relative (parts of its sum) or zscore (FLAP)"},
    )

    def __post_init__(self) -> None:
        require_standard(self.standardise)


def standardised(ranking: Ranking, standardise: str) -> Ranking:
    """A ranking with the damages of every group on a scale of its own.

    Args:
        ranking: damages by group.
        standardise: one of `STANDARDS`.

    Returns:
        The same ranking for `"none"`; else one that is made of damages as a path stores them
        (float32), so that a stored path can be standardised later with the same result.

    Raises:
        RequestError: an unknown way to standardise.

    Example:
        >>> found = standardised(Ranking(damage={"a": np.array([1.0, 3.0])}), "zscore")
        >>> found.damage["a"].tolist(), found.order
        ([0.0, 2.0], 'damage')
    """
    require_standard(standardise)
    if standardise == "none":
        return ranking
    scores = {
        name: torch.from_numpy(np.asarray(values, dtype=np.float32).astype(np.float64))
        for name, values in ranking.damage.items()
    }
    if standardise == "relative":
        parts = {name: relative(values, values.sum()).numpy() for name, values in scores.items()}
        return replace(ranking, damage=parts, entry_time=None)
    above = above_least({name: zscore(values).numpy() for name, values in scores.items()})
    return replace(ranking, damage=above, entry_time=None, order="damage")


def zscore(scores: Tensor) -> Tensor:
    """Distance from the mean in standard deviations; 0 where all are equal."""
    centred = scores - scores.mean()
    return centred / _positive(centred.square().mean().sqrt())


def relative(scores: Tensor, whole: Tensor) -> Tensor:
    """Parts of a whole; 0 where that is 0."""
    return scores / _positive(whole)


def above_least(found: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """The same numbers counted from the least of all groups.

    Differences of z-scores are what counts, and a damage cannot be negative.
    """
    least = min(float(scores.min()) for scores in found.values())
    return {name: scores - least for name, scores in found.items()}


def _positive(value: Tensor) -> Tensor:
    return value.clamp_min(torch.finfo(value.dtype).tiny)
