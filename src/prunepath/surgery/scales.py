"""Mask tuning: one scale per surviving unit, so that what is left answers like the whole.

A refit solves for every weight of a consumer; this solves for one number per unit it still reads,
which no few samples can overfit. With kept weights W_S, inputs x_S and a wish y, unit u owning the
columns c of it, the scales minimise

    E ||y - W_S diag(s) x_S||^2  +  lambda ||s - 1||^2,

whose normal equations are N s = b, N = (W_S^T W_S) o E[x_S x_S^T] and b = diag(W_S^T E[y x_S^T])
summed over the columns of units. It is the last stage of Kwon et al. (2022), with three
differences: the aim is the dense model and not one pruned less; the damping holds scales at 1
relative to the median of N's diagonal; and only consumers that lost inputs are tuned. The scales
end in the consumer's columns, so the result has no further parameters.

Shapes: O outputs, I dense inputs, S kept inputs, U surviving units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunepath.errors import NumericsError
from prunepath.statistics.solve import factor
from prunepath.statistics.sums import Statistics
from prunepath.structure.axes import IntArray
from prunepath.structure.matrices import set_weight_
from prunepath.structure.selection import Selection
from prunepath.structure.units import Structure
from prunepath.surgery.refit import Consumer, ridge_scale
from prunepath.surgery.stream import Stream, repair_in_order_

__all__ = ["column_units", "scale_from_moments_", "scale_in_order_", "unit_scales"]

DAMPING = 0.1
LARGEST = 10.0
"""Scales beyond are no correction any more; the group then keeps its weights."""


def column_units(structure: Structure, selection: Selection, consumer: Consumer) -> IntArray:
    """Which surviving unit every kept input of a consumer belongs to: 0 to U - 1, (S,).

    Units are the finest that were cut: a scale for each channel, and for each head where whole
    heads went.
    """
    groups = next(
        groups
        for groups in structure.groups_by_place.values()
        if any(group.consumer == consumer.name for group in groups)
    )
    layout = next(group.gate.layout for group in groups if group.consumer == consumer.name)
    cut = [g for g in groups if layout.covers(g.unit) and not selection.of(g).all()]
    finest = max(cut, key=lambda group: group.num_units)
    owner = layout.owner(finest.unit)[consumer.kept]
    units: IntArray = np.unique(owner, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return units


def unit_scales(
    weight_OS: Tensor,
    moment_SS: Tensor,
    cross_OS: Tensor,
    units: IntArray,
    *,
    damping: float = DAMPING,
) -> Tensor:
    """The scales of all surviving units, solved in float64.

    Args:
        weight_OS: the kept weights.
        moment_SS: second moment of the inputs the consumer gets.
        cross_OS: mean of wish times input, on the same samples.
        units: the unit of every column, 0 to U - 1, (S,).
        damping: strength of the hold at 1, relative to the median diagonal of N.

    Returns:
        One scale per unit, (U,), float64; all 1 where one of them would leave [-10, 10].

    Raises:
        NumericsError: the moments cannot be solved with.

    Example:
        >>> one = torch.ones(1, 1)
        >>> scales = unit_scales(one, one, 1.2 * one, np.array([0]), damping=0.0)
        >>> round(scales.item(), 6)
        1.2
    """
    weight = weight_OS.double()
    owner = torch.from_numpy(units).to(weight.device)
    count = int(units.max()) + 1
    by_column = (weight.T @ weight) * moment_SS.to(weight)
    by_row = by_column.new_zeros(count, len(units)).index_add_(0, owner, by_column)
    system = by_column.new_zeros(count, count).index_add_(1, owner, by_row)
    wish = weight.new_zeros(count).index_add_(0, owner, (weight * cross_OS.to(weight)).sum(0))
    missing = wish - system.sum(1)  # what scales of 1 leave open
    hold = ridge_scale(system)
    system.diagonal().add_(damping * hold)
    change = torch.cholesky_solve(missing.unsqueeze(1), factor(system, 1e-6 * hold)).squeeze(1)
    scales = 1.0 + change
    if not torch.isfinite(scales).all():
        raise NumericsError(
            "a scale of the mask tuning is not finite; check the calibration data, or extract with "
            "--refit none"
        )
    return scales if scales.abs().max() <= LARGEST else torch.ones_like(scales)


def scale_in_order_(
    model: nn.Module,
    stream: Stream,
    dense_weights: Mapping[str, Tensor],
    consumers: list[Consumer],
    units: Mapping[str, IntArray],
    *,
    damping: float = DAMPING,
) -> None:
    """Tune the consumers of a cut model one after the other, on its own activations.

    Args:
        model: the cut model; columns of its consumers' weights are scaled.
        stream: how it is run and read.
        dense_weights: consumer -> dense weight (O, I).
        consumers: those that lost inputs.
        units: consumer -> `column_units`.
        damping: see `unit_scales`.

    Raises:
        NumericsError: the moments cannot be solved with.
    """
    kept = {consumer.name: consumer.kept for consumer in consumers}

    def solve(name: str, rows: Tensor, wishes: Tensor) -> Tensor:
        weight = _columns(dense_weights[name], kept[name])
        moment, cross = rows.T @ rows / len(rows), wishes.T @ rows / len(rows)
        scales = unit_scales(weight, moment, cross, units[name], damping=damping)
        return weight * _spread(scales, units[name])

    repair_in_order_(model, stream, kept, solve)


def scale_from_moments_(
    model: nn.Module,
    dense_weights: Mapping[str, Tensor],
    consumers: list[Consumer],
    statistics: Statistics,
    units: Mapping[str, IntArray],
    *,
    damping: float = DAMPING,
) -> None:
    """Tune consumers from the dense model's second moments, as if nothing before them was cut.

    For those whose outputs no search keeps: a router that was cut sends their tokens elsewhere.

    Args:
        model: the cut model; columns of its consumers' weights are scaled.
        dense_weights: consumer -> dense weight (O, I).
        consumers: those that lost inputs.
        statistics: holds `moments`.
        units: consumer -> `column_units`.
        damping: see `unit_scales`.

    Raises:
        NumericsError: the moments cannot be solved with.
    """
    for consumer in consumers:
        linear: Any = model.get_submodule(consumer.name)
        moment = statistics.mean("moments", consumer.name)
        stay = torch.from_numpy(np.flatnonzero(consumer.kept))
        cross = dense_weights[consumer.name].to(moment) @ moment[:, stay]
        weight = _columns(dense_weights[consumer.name], consumer.kept)
        own = units[consumer.name]
        scales = unit_scales(weight, moment[stay][:, stay], cross, own, damping=damping)
        set_weight_(linear, weight * _spread(scales, own))


def _columns(weight_OI: Tensor, kept: Any) -> Tensor:
    stay = torch.from_numpy(np.flatnonzero(kept)).to(weight_OI.device)
    return weight_OI.double().index_select(1, stay)


def _spread(scales: Tensor, units: IntArray) -> Tensor:
    """The scale of every column."""
    return scales[torch.from_numpy(units).to(scales.device)]
