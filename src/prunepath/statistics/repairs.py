"""What may be repaired after inputs of a linear map left, and the squared error that stays.

Scores and refits say the same four words, so they cannot disagree on what a removal costs. With
H = E x x^T, mu = E x and C = H - mu mu^T, removing the inputs R of y = W x and keeping S leaves

| repair | moves | error |
|---|---|---|
| `none` | nothing | tr(W_R H_RR W_R^T) |
| `bias` | b by W_R mu_R | tr(W_R C_RR W_R^T) |
| `linear` | W_S by W_R H_RS H_SS^-1 | tr(W_R (H_RR - H_RS H_SS^-1 H_SR) W_R^T) |
| `linear+bias` | W_S by W_R C_RS C_SS^-1, b by what W then lacks at the mean | the same with C |

Each is the least mean squared error of the output that its repair can reach. A ridge of lambda adds
lambda ||W' - W||^2 to what is minimised, removed columns included.

Shapes: O outputs, I inputs.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from prunepath.errors import RequestError
from prunepath.statistics.solve import factor
from prunepath.statistics.sums import Statistics
from prunepath.structure.axes import BoolArray

__all__ = ["REPAIRS", "error_after_repair", "moment_for", "moves_bias", "moves_weights"]

REPAIRS = ("none", "bias", "linear", "linear+bias")


def moves_bias(repair: str) -> bool:
    """Whether a repair moves the bias.

    Raises:
        RequestError: it is none of the four words.
    """
    if repair not in REPAIRS:
        raise RequestError(f"unknown repair '{repair}'; use one of {', '.join(REPAIRS)}")
    return "bias" in repair


def moves_weights(repair: str) -> bool:
    """Whether a repair moves the weights that are left.

    Raises:
        RequestError: it is none of the four words.
    """
    moves_bias(repair)
    return "linear" in repair


def moment_for(statistics: Statistics, consumer: str, repair: str) -> Tensor:
    """Second moment of a consumer's inputs that a repair leaves errors of; float64, (I, I).

    The centred one where the bias takes the mean up.
    """
    moment = statistics.mean("moments", consumer)
    if not moves_bias(repair):
        return moment
    mean = statistics.mean("inputs", consumer).to(moment.device)
    return moment - torch.outer(mean, mean)


def error_after_repair(
    weight_OI: Tensor, moment_II: Tensor, kept: BoolArray, repair: str, *, ridge: float = 0.0
) -> float:
    """Mean squared error of a map's output after inputs left and the rest was repaired.

    Args:
        weight_OI: the dense weight.
        moment_II: what `moment_for` gives for this repair.
        kept: which inputs are left, (I,).
        repair: one of `REPAIRS`.
        ridge: lambda, in the unit of the moment; the result then holds its penalty, too.

    Returns:
        E||W x - W' x_S - b||^2 per row.

    Example:
        >>> weight = torch.tensor([[2.0, 1.0]])
        >>> moment = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
        >>> kept = np.array([False, True])
        >>> error_after_repair(weight, moment, kept, "none")
        4.0
        >>> error_after_repair(weight, moment, kept, "linear")
        3.0
    """
    stay, out = (torch.from_numpy(np.flatnonzero(mask)) for mask in (kept, ~kept))
    moment = moment_II.double().clone()
    moment.diagonal().add_(ridge)
    left = moment[out][:, out]
    if moves_weights(repair) and len(stay):
        cross = moment[stay][:, out]
        system = moment[stay][:, stay]
        left = left - cross.T @ torch.cholesky_solve(cross, factor(system, ridge))
    lost = weight_OI.to(moment)[:, out]
    return float((lost @ left * lost).sum())
