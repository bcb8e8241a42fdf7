"""Baselines behind the same interface: diagonal Fisher, magnitude, first-order Taylor, random."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from prunepath.errors import RequestError
from prunepath.methods.method import CostClass, FloatArray, Method, Ranking, SearchContext
from prunepath.methods.standardise import AFTER_SCORING, ScoreConfig, standardised
from prunepath.statistics.collect import Wanted
from prunepath.structure.units import UnitGroup

__all__ = ["DiagonalFisher", "Magnitude", "Random", "Taylor", "TaylorConfig", "unit_norms"]


class DiagonalFisher(Method):
    """Half the mean squared gate gradient: the second-order damage of removing a unit alone.

    F_j / 2 with F_j the mean over loss rows of (dL/dm_j)^2 (Kwon et al. 2022; where the loss has
    one term per token, with tokens instead of sequences as samples).
    """

    name = "fisher"
    summary = "mean squared gate gradient, each unit by itself"
    Config = ScoreConfig
    after_scoring: ClassVar[tuple[str, ...]] = AFTER_SCORING
    reads_moments: ClassVar[bool] = False

    def wanted(self) -> Wanted:
        return Wanted(gradients=True, moments=True, output_gradients=False)

    def rank(self, context: SearchContext) -> Ranking:
        sums = context.statistics
        damage = {
            group.name: sums.mean("fisher", group.name).cpu().numpy() / 2
            for group in context.structure.groups
        }
        return standardised(Ranking(damage=damage), self.config.standardise)


_TABLES = {"sample": "gradient_windows", "sum": "gradient"}


@dataclass(frozen=True, kw_only=True)
class TaylorConfig(ScoreConfig):
    """Settings of `taylor`.

    Raises:
        RequestError: an unknown reduction, or way to standardise.
    """

    reduction: str = field(
        default="sample",
        metadata={"help": "sample (mean of absolute values) or sum (absolute value of the sum)"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reduction not in _TABLES:
            raise RequestError(
                f"unknown reduction '{self.reduction}' of the method 'taylor'; use "
                f"{' or '.join(_TABLES)}"
            )


class Taylor(Method):
    """First-order Taylor: absolute gate gradient of the task loss.

    |dL/dm_j| at m = 1 is |<w_j, dL/dw_j>| (Molchanov et al. 2017), of every sample by itself, or
    (`reduction=sum`) of their sum, in which samples that disagree cancel. Against the divergence
    from the dense model the expected gradient is zero, so the task loss is the default objective.
    """

    name = "taylor"
    summary = "absolute gate gradient of the task loss"
    Config = TaylorConfig
    after_scoring: ClassVar[tuple[str, ...]] = AFTER_SCORING
    reads_moments: ClassVar[bool] = False

    def objective(self) -> str:
        return "task"

    def wanted(self) -> Wanted:
        return Wanted(gradients=True, moments=True, output_gradients=False)

    def rank(self, context: SearchContext) -> Ranking:
        sums, table = context.statistics, _TABLES[self.config.reduction]
        damage = {
            group.name: sums.mean(table, group.name).abs().cpu().numpy()
            for group in context.structure.groups
        }
        return standardised(Ranking(damage=damage), self.config.standardise)


class Magnitude(Method):
    """Product of the norms of all weights a unit owns, one factor per tensor."""

    name = "magnitude"
    summary = "product of weight norms; no data"
    Config = ScoreConfig
    after_scoring: ClassVar[tuple[str, ...]] = AFTER_SCORING
    reads_moments: ClassVar[bool] = False

    def cost_class(self) -> CostClass:
        return "data-free"

    def rank(self, context: SearchContext) -> Ranking:
        damage = {
            group.name: np.exp(2 * _log_norms(context, group)) for group in context.structure.groups
        }
        return standardised(Ranking(damage=damage), self.config.standardise)


def unit_norms(context: SearchContext, group: UnitGroup) -> FloatArray:
    """Geometric mean, over the tensors a unit owns a part of, of the norms of these parts.

    What a unit adds to the output is a product of one factor per tensor, and so is its size; the
    root makes groups with two and with three tensors comparable.

    Returns:
        In the unit of a weight, (units,).
    """
    return np.asarray(np.exp(_log_norms(context, group)), dtype=np.float64)


def _log_norms(context: SearchContext, group: UnitGroup) -> FloatArray:
    place = context.structure.places_by_path[group.place]
    log_product = np.zeros(group.num_units)
    num_factors = 0
    for unit, path in enumerate(group.members):  # modules that leave whole: all of each tensor
        tensors = context.structure.places_by_path[path].tensors
        whole = [context.weight(t.name).double().norm().item() for t in tensors if any(t.rows)]
        log_product[unit] = np.log(np.maximum(whole, 1e-300)).sum()
        num_factors = len(whole)
    for tensor in place.tensors:
        for dim, axis in enumerate(tensor.axes):
            if not axis.covers(group.unit) or not any(tensor.rows):
                continue
            weight = context.weight(tensor.name).double()
            squares = weight.square().sum(dim=tuple(d for d in range(weight.dim()) if d != dim))
            owner = torch.from_numpy(axis.owner(group.unit).copy())
            owned = owner >= 0  # a fused projection has positions of others
            norms = torch.zeros(group.num_units, dtype=torch.float64)
            norms.index_add_(0, owner[owned], squares.cpu()[owned])
            log_product += 0.5 * np.log(np.maximum(norms.numpy(), 1e-300))
            num_factors += 1
    return np.asarray(log_product / max(1, num_factors), dtype=np.float64)


class Random(Method):
    """A random order from the seed: what any method has to beat."""

    name = "random"
    summary = "a seeded random order"

    def cost_class(self) -> CostClass:
        return "data-free"

    def rank(self, context: SearchContext) -> Ranking:
        generator = np.random.default_rng(context.seed)
        # Sub-layers draw last: the finer units of a model are ranked alike with and without them.
        groups = sorted(context.structure.groups, key=lambda group: group.is_sublayer)
        return Ranking(
            damage={group.name: generator.random(group.num_units) + 1e-9 for group in groups}
        )
