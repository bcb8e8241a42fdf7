"""SPP from statistics alone: the damage of every unit on a quadratic model of the loss.

Every group is one block. Where its units are columns of a linear map (its consumer) there are two
models of the curvature: `refit`, the cost of a removal after the best repair of what is left, and
`fisher`, the Kronecker-factored block C o (W^T G W) without repair (C: second moment of the inputs,
G: of the output gradients). A whole sub-layer leaves no columns to repair, and its block is one
number. Query-key coordinates have no linear map to repair; they use the block of their gate
gradients as far as the samples vouch for it, or its diagonal in groups too large for one.

All damages are in nats per token, so groups of all kinds merge by damage per cost. They work on
means of whatever statistics they are given: a group can be continued with statistics collected on
a model that was cut and repaired on the way (`removed`, `damage`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunepath.methods.believed import believed_block, believed_diagonal
from prunepath.methods.elimination import coupling_block, eliminate, eliminate_with_refit
from prunepath.methods.flow import flow_order
from prunepath.methods.method import FloatArray, SearchContext
from prunepath.methods.spp_config import SppConfig
from prunepath.statistics.sums import Statistics
from prunepath.structure.axes import BoolArray
from prunepath.structure.matrices import weight_of
from prunepath.structure.units import UnitGroup

__all__ = ["curvature_block", "group_damage", "surrogate_damage"]


def surrogate_damage(context: SearchContext, config: SppConfig) -> dict[str, FloatArray]:
    """Damage of every unit of every group, (units,) each."""
    from prunepath.progress import track

    groups = context.structure.groups
    return {
        group.name: group_damage(
            group,
            context.statistics,
            weight_of(context.model.get_submodule(group.consumer)) if group.consumer else None,
            config,
        )
        for group in track(context.progress, groups, "ordering units")
    }


def group_damage(
    group: UnitGroup,
    statistics: Statistics,
    weight: Tensor | None,
    config: SppConfig,
    *,
    removed: BoolArray | None = None,
    damage: FloatArray | None = None,
) -> FloatArray:
    """Damage of one group's units, increasing in the order they leave in each lane.

    Args:
        group: the group.
        statistics: sums of a calibration pass.
        weight: the consumer's weight, dense or already repaired; None without a consumer.
        config: curvature, solver and their settings.
        removed: units already out, (units,), equally many in every lane.
        damage: what those units cost when they left; kept as it is.

    Returns:
        Nats per token, (units,).

    Raises:
        RequestError: a sum is missing from the statistics.
        NumericsError: a sum is not finite.
    """
    out = None if removed is None else torch.from_numpy(removed)
    before = None if damage is None else torch.from_numpy(damage)
    refit = config.curvature == "refit"
    if weight is not None and refit and not group.is_sublayer:
        values = eliminate_with_refit(
            weight,
            statistics.mean("moments", group.consumer),
            statistics.mean("output_gradients", group.consumer),
            group.gate.layout.owner(group.unit),
            group.num_lanes,
            rounds=config.rounds,
            damping=config.damping,
            removed=out,
            damage=before,
            scale_U=_measured_over_factored(group, statistics, weight, config),
        )
        return values.numpy()
    block = curvature_block(group, statistics, weight)
    if config.solver == "elimination" and group.name in statistics.fisher_fourths:
        fourths = statistics.mean("fisher_fourths", group.name)
        block = believed_block(block, fourths, statistics.tokens, config.doubt)
    if weight is not None and refit:  # of a whole sub-layer nothing is left to be repaired
        ratio = _trusted_ratio(group, statistics, block.diagonal().cpu(), config)
        block = block if ratio is None else block * ratio.to(block.device)
    order = None
    if config.solver == "flow":
        order = flow_order(block, removed=out, **config.bregman_settings)
    return eliminate(block, group.num_lanes, order=order, removed=out, damage=before).numpy()


def _measured_over_factored(
    group: UnitGroup, statistics: Statistics, weight: Tensor, config: SppConfig
) -> Tensor | None:
    """How far the factored curvature of each unit is from its measured one, (units,).

    C and G are averaged apart, which loses that some units are active just where the loss is
    sensitive. The diagonal is known without that approximation: it is the mean squared gate
    gradient. Its ratio to the factored diagonal corrects a unit's cost, to a power below one
    because the measured value is noisy itself.
    """
    if not config.correction:
        return None
    if group.num_units == group.gate.layout.size:  # one column each: no need of the whole block
        moment = statistics.mean("moments", group.consumer).diagonal()
        gradients = statistics.mean("output_gradients", group.consumer)
        columns = weight.to(gradients.device).double()
        factored = (moment * (columns * (gradients @ columns)).sum(0)).cpu()
    else:
        factored = curvature_block(group, statistics, weight).diagonal().cpu()
    return _trusted_ratio(group, statistics, factored, config)


def _trusted_ratio(
    group: UnitGroup, statistics: Statistics, factored: Tensor, config: SppConfig
) -> Tensor | None:
    """Measured over factored diagonal within bounds, to a power, (units,); None: a power of 0."""
    if not config.correction:
        return None
    measured = statistics.mean("fisher", group.name).cpu()
    if config.pooling and group.name in statistics.gradient_sizes:
        sizes, fourths = (
            statistics.mean(table, group.name).cpu()
            for table in ("gradient_sizes", "gradient_fourths")
        )
        measured = believed_diagonal(measured, sizes, fourths, statistics.tokens)
    ratio = measured / factored.clamp_min(torch.finfo(torch.float64).tiny)
    return ratio.clamp(*_TRUSTED_RATIOS).pow(config.correction)


_TRUSTED_RATIOS = (0.05, 20.0)


def curvature_block(group: UnitGroup, statistics: Statistics, weight: Tensor | None) -> Tensor:
    """Curvature of the loss in the gates of one group, nothing repaired; float64, (U, U).

    With a consumer, gate j scales its columns, and B_jk sums C o (W^T G W) over the columns of j
    and k. Without one, B is the mean outer product of gate gradients.
    """
    if weight is None:
        if group.name in statistics.fisher_blocks:
            return statistics.mean("fisher_blocks", group.name)
        return statistics.mean("fisher", group.name).diag()
    return coupling_block(
        weight,
        statistics.mean("moments", group.consumer),
        group.gate.layout.owner(group.unit),
        statistics.mean("output_gradients", group.consumer),
    )
