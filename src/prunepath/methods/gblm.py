"""Gradient and activation of every weight of a unit, added up: GBLM-Pruner by structure.

GBLM-Pruner (arXiv 2311.04902) scores a weight by |w_ij| (||x_j|| + G_ij) with G an aggregate over
samples of the gradient of the loss. Here the scores of all weights of the linear maps that a unit
owns are added:

- `l1`: sum of |w_ij| (||x_j|| + alpha E_b |g_b,ij|), ||x_j||^2 the mean over samples of the summed
  squares of an input. Their sum over 128 samples of 100 |g| is alpha = 12800 of our mean, which
  does not grow with the number of samples.
- `fisher`: half the sum of w_ij^2 E_b g_b,ij^2, the damage in second order of removing every weight
  by itself, in nats of a sample's mean loss.

g_b is the gradient of the mean loss of sample b. Their other aggregate, the root of a sum of
squares, is not offered: it takes an accumulator the size of the model. Theirs scores weights behind
layers that were pruned before; ours scores the dense model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from prunepath.errors import RequestError
from prunepath.methods.method import FloatArray, Method, Ranking, SearchContext
from prunepath.methods.standardise import AFTER_SCORING, ScoreConfig, standardised
from prunepath.statistics.collect import Wanted
from prunepath.statistics.sums import Statistics
from prunepath.statistics.weights import weight_key
from prunepath.structure.axes import Axis
from prunepath.structure.matrices import is_linear, is_transposed, weight_of
from prunepath.structure.units import UnitGroup

__all__ = ["Gblm", "GblmConfig"]

_FORMS = ("l1", "fisher")


@dataclass(frozen=True, kw_only=True)
class GblmConfig(ScoreConfig):
    """Settings of `gblm`.

    Raises:
        RequestError: an unknown form or way to standardise, or a negative alpha.
    """

    form: str = field(
        default="l1", metadata={"help": "l1 (as published, summed over a unit) or fisher"}
    )
    alpha: float = field(
        default=12800.0, metadata={"help": "l1: weight of the gradient against the activation"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in _FORMS:
            raise RequestError(
                f"unknown form '{self.form}' of the method 'gblm'; use {' or '.join(_FORMS)}"
            )
        if not 0 <= self.alpha < float("inf"):
            raise RequestError(f"alpha is {self.alpha}; it must be 0 or above")


class Gblm(Method):
    """Sums over a unit's weights of what each would cost by itself."""

    name = "gblm"
    summary = "weight times activation norm and gradient of every weight, summed over a unit"
    scope = "units whose weights lie in linear maps of their own sub-layer"
    Config = GblmConfig
    after_scoring: ClassVar[tuple[str, ...]] = AFTER_SCORING
    reads_moments: ClassVar[bool] = False

    def scores(self, group: UnitGroup) -> bool:
        return not group.members  # the weights of a whole expert are those of other groups

    def objective(self) -> str:
        return "task"

    def wanted(self) -> Wanted:
        return Wanted(gradients=False, moments=True, output_gradients=False, weights=True)

    def rank(self, context: SearchContext) -> Ranking:
        damage = {group.name: self._damage(context, group) for group in context.structure.groups}
        return standardised(Ranking(damage=damage), self.config.standardise)

    def _damage(self, context: SearchContext, group: UnitGroup) -> FloatArray:
        total = torch.zeros(group.num_units, dtype=torch.float64)
        for tensor in context.structure.places_by_path[group.place].tensors:
            name = tensor.name.removesuffix(".weight")
            linear = context.model.get_submodule(name) if name != tensor.name else None
            if linear is None or not is_linear(linear):
                continue
            axes = tensor.axes[::-1] if is_transposed(linear) else tensor.axes
            for side, axis in zip(("output", "input"), axes, strict=True):
                if axis.covers(group.unit):
                    scores = self._scores(context, name, weight_of(linear), side)
                    total += _of_units(scores.cpu(), axis, group)
        return total.numpy()

    def _scores(self, context: SearchContext, name: str, weight_OI: Tensor, side: str) -> Tensor:
        """Scores of one linear map, added up to its rows or its columns."""
        sums, num_samples = context.statistics, len(context.samples)
        rows = sums.tokens / num_samples  # terms of the loss in a sample
        key = weight_key(name, side)
        if self.config.form == "fisher":
            return _sum_of(sums, "weight_fisher", key) / (2 * num_samples * rows**2)
        slopes = _sum_of(sums, "weight_gradients", key) / (num_samples * rows)
        norms = (_sum_of(sums, "input_squares", name) / num_samples).sqrt()
        sizes = weight_OI.to(norms).abs()
        activity = sizes @ norms if side == "output" else sizes.sum(0) * norms
        return activity + slopes * float(self.config.alpha)


def _sum_of(sums: Statistics, table: str, key: str) -> Tensor:
    return sums.mean(table, key) * sums.tokens


def _of_units(scores: Tensor, axis: Axis, group: UnitGroup) -> Tensor:
    """Scores of the positions of an axis, added up to the units that own them."""
    owner = torch.from_numpy(axis.owner(group.unit).copy())
    owned = owner >= 0  # a fused projection has positions of others
    total = torch.zeros(group.num_units, dtype=torch.float64)
    return total.index_add_(0, owner[owned], scores.double()[owned])
