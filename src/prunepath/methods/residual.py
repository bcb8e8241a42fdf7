"""Residual variance: what a consumer's output loses when inputs leave and the rest is repaired.

One score, four repairs (`statistics/repairs.py`): the least squared output error that is left when
nothing may move, when the bias may, when the weights may, or both. Published methods are settings:

| repair, metric | score of a unit u | published as |
|---|---|---|
| `none`, `energy` | E||W_u x_u||^2 | |
| `none`, `wanda` | sum over its columns j of ||W_j||_1 (E x_j^2)^(1/2) | Wanda-sp |
| `bias`, `energy` | E||W_u (x_u - mu_u)||^2 | |
| `bias`, `wifv` | sum over its columns j of ||W_j||^2 Var x_j | FLAP (arXiv 2312.11983) |
| `linear`, `energy` | tr(W_u (H^-1_uu)^-1 W_u^T) | OBS: OSSCAR, ZipLM |
| `linear+bias`, `energy` | tr(W_u (C^-1_uu)^-1 W_u^T) | |

In a column of its own `energy` and `wifv` are the same; in a head, `energy` knows that its columns
vary together. In several `rounds` a unit is scored with what left before it out, and repaired for:
one unit a round, its damage is what the error of the whole set grows by (and not below the damage
before it). All statistics are the dense model's; the published Wanda-sp and OSSCAR measure later
layers behind earlier cuts.

Units in front of no consumer (query-key coordinates) have no output of a linear map to lose; they
are not scored and stay.
"""

from __future__ import annotations

from torch import Tensor

from prunepath.methods.elimination import (
    coupling_block,
    eliminate,
    eliminate_with_refit,
    energy_by_unit,
)
from prunepath.methods.method import Method, Ranking, SearchContext
from prunepath.methods.residual_config import ResidualConfig
from prunepath.methods.standardise import above_least, relative, zscore
from prunepath.progress import track
from prunepath.statistics.collect import Wanted
from prunepath.statistics.repairs import moment_for, moves_weights
from prunepath.statistics.sums import Statistics
from prunepath.structure.gates import owner_index
from prunepath.structure.matrices import weight_of
from prunepath.structure.units import UnitGroup

__all__ = ["Residual", "ResidualConfig", "residual_damage"]


class Residual(Method):
    """Squared output error after the best repair from an allowed set; forward passes only."""

    name = "residual"
    summary = "output error of a linear map after the repair that is allowed; forward only"
    scope = "only inputs of linear maps"
    Config = ResidualConfig

    def wanted(self) -> Wanted:
        return Wanted(gradients=False, moments=True, output_gradients=False)

    def scores(self, group: UnitGroup) -> bool:
        return bool(group.consumer)

    def rank(self, context: SearchContext) -> Ranking:
        scored = _joint_scores if self.config.metric == "energy" else _column_scores
        found = {
            group.name: scored(context, group, self.config).cpu().numpy()
            for group in track(context.progress, context.structure.groups, "ordering units")
        }
        if self.config.standardise == "zscore":
            return Ranking(damage=above_least(found), order="damage")
        return Ranking(damage=found)


def residual_damage(
    group: UnitGroup, statistics: Statistics, weight: Tensor, config: ResidualConfig
) -> Tensor:
    """Squared output error that each unit of a group adds at the moment it leaves.

    Args:
        group: a group with a consumer.
        statistics: sums of a calibration pass; holds `moments`, and `inputs` for the bias.
        weight: the consumer's weight, (O, I).
        config: repair, rounds and damping.

    Returns:
        Per row of the consumer's input, float64, (units,); with more than one round increasing in
        the order they leave in each lane.

    Raises:
        RequestError: a sum is missing from the statistics.
        NumericsError: a sum is not finite, or the moment cannot be factored.
    """
    moment = moment_for(statistics, group.consumer, config.repair)
    owner = group.gate.layout.owner(group.unit)
    if moves_weights(config.repair):
        half = eliminate_with_refit(
            weight,
            moment,
            None,
            owner,
            group.num_lanes,
            rounds=config.rounds,
            damping=config.damping,
        )
        return 2 * half
    if config.rounds == 1:  # a centred moment of a constant may be a rounding error below zero
        return energy_by_unit(weight, moment, owner).clamp_min(0)
    return 2 * eliminate(
        coupling_block(weight, moment, owner), group.num_lanes, rounds=config.rounds
    )


def _joint_scores(context: SearchContext, group: UnitGroup, config: ResidualConfig) -> Tensor:
    """Errors of whole units, standardised over the group."""
    weight = weight_of(context.model.get_submodule(group.consumer))
    scores = residual_damage(group, context.statistics, weight, config)
    if config.standardise == "relative":
        moment = moment_for(context.statistics, group.consumer, config.repair)
        columns = weight.to(moment)
        return relative(scores, (columns @ moment * columns).sum())
    return zscore(scores) if config.standardise == "zscore" else scores


def _column_scores(context: SearchContext, group: UnitGroup, config: ResidualConfig) -> Tensor:
    """Scores of single columns added up to units, as Wanda-sp and FLAP have them.

    Their z-scores are FLAP's: over all columns of a consumer, those of attention squared before,
    and averaged over the columns of a unit.
    """
    weight = weight_of(context.model.get_submodule(group.consumer))
    moment = moment_for(context.statistics, group.consumer, config.repair)
    mean_square = moment.diagonal().clamp_min(0)
    columns = weight.to(moment)
    if config.metric == "wanda":
        scores = columns.abs().sum(0) * mean_square.sqrt()
    else:
        scores = columns.square().sum(0) * mean_square
    if config.standardise == "relative":
        scores = relative(scores, scores.sum())
    if config.standardise == "zscore":
        place = context.structure.places_by_path[group.place]
        attends = bool(place.pair_layouts)  # pairs of tokens are multiplied there
        scores = zscore(scores.square() if attends else scores)
        scores = scores * (group.num_units / len(scores))
    owner = owner_index(group).to(scores.device)
    return scores.new_zeros(group.num_units).index_add_(0, owner, scores)
