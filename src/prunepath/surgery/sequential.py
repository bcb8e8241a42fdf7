"""Sequential repair: every consumer corrects what the cut before it has already changed.

On the cut model's own activations (`stream.py`) the weight W' of every consumer is the minimiser of

    E_windows ||y_d + alpha (h_d - h_p) - W' x_p||^2  +  mu E_dense ||W x - W' x_S||^2  +  ridge

The second term is the one-shot repair of `refit.py`, formed from the dense second moments of far
more tokens; it keeps a few thousand tokens from being overfitted.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from prunepath.errors import NumericsError
from prunepath.statistics.solve import factor
from prunepath.statistics.sums import Statistics, add_outer_products_
from prunepath.structure.axes import BoolArray
from prunepath.surgery.refit import Consumer, ridge_scale
from prunepath.surgery.stream import Stream, repair_in_order_

__all__ = ["refit_sequentially_"]


def refit_sequentially_(
    model: nn.Module,
    stream: Stream,
    dense_weights: Mapping[str, Tensor],
    consumers: list[Consumer],
    statistics: Statistics,
    *,
    prior: float = 38.5,
    ridge: float = 0.1,
) -> None:
    """Repair the consumers of a cut model one after the other, on its own activations.

    Args:
        model: the cut model; consumers' weights are replaced.
        stream: how it is run and read.
        dense_weights: consumer -> dense weight (O, I).
        consumers: those that lost inputs.
        statistics: the dense model's second moments.
        prior: how many samples the dense moments count for: few windows are held by them, many
            speak for themselves; mu is this over the number of samples.
        ridge: strength of the anchor at the kept weights, relative to the median diagonal of the
            dense moment.

    Raises:
        NumericsError: a repaired weight is not finite.
    """
    kept = {consumer.name: consumer.kept for consumer in consumers}

    def solve(name: str, rows: Tensor, wishes: Tensor) -> Tensor:
        mu = prior / len(stream.outputs[name])
        moment = statistics.mean("moments", name)
        held = _Prior(dense_weights[name], moment, kept[name], mu, ridge)
        return _solve(name, rows, wishes, held)

    repair_in_order_(model, stream, kept, solve)


class _Prior:
    """The normal equations of the dense moments: `system` (S, S) and `target` (S, O)."""

    def __init__(
        self, weight_OI: Tensor, moment_II: Tensor, kept: BoolArray, mu: float, ridge: float
    ) -> None:
        stay = torch.from_numpy(np.flatnonzero(kept))
        weight = weight_OI.double()
        anchor = ridge * ridge_scale(moment_II)
        self.system = mu * moment_II[stay][:, stay]
        self.anchor = (1 + mu) * anchor
        self.system.diagonal().add_(self.anchor)
        self.target = mu * (moment_II[stay] @ weight.T) + self.anchor * weight[:, stay].T


def _solve(name: str, rows: Tensor, wishes: Tensor, prior: _Prior) -> Tensor:
    """The weight (O, S) that gives the wanted outputs, held by the prior; solved in float64."""
    products = rows.new_zeros(rows.shape[1], rows.shape[1])
    add_outer_products_(products, rows)
    system = products.double() / len(rows) + prior.system
    target = (rows.T @ wishes).double() / len(rows) + prior.target
    weight = torch.cholesky_solve(target, factor(system, prior.anchor)).T
    if not torch.isfinite(weight).all():
        raise NumericsError(
            f"the repaired weight of '{name}' is not finite; extract with --refit moments or none"
        )
    return weight
