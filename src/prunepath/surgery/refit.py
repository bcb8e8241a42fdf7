"""Closed-form repair of what survives a cut: ridge regression anchored at the kept weights.

A consumer y = W x loses the inputs R and keeps S. The repair
    W_S <- W_S + W_R C_RS (C_SS + lambda I)^-1
minimises E||W x - W' x_S||^2 + lambda ||W' - W_S||^2 with C the second moment of the inputs. It
is the identity when nothing is removed; a ridge that shrinks to zero would change even the dense
model. Lambda is relative to the *median* of C's diagonal: a few massive activations can hold
nearly all of its trace, and a ridge scaled by the mean would then switch the repair off.

A consumer that lost all inputs, as in a sub-layer that was taken out, says one constant: its bias.
The best one, in the same squared error, is what it said in the mean: b + W E[x].

Shapes: O outputs, I inputs, S kept inputs, R removed inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunepath.statistics.solve import factor
from prunepath.statistics.sums import Statistics
from prunepath.structure.axes import BoolArray
from prunepath.structure.matrices import set_weight_
from prunepath.structure.selection import Selection, kept_positions, remains
from prunepath.structure.units import Structure

__all__ = [
    "Consumer",
    "anchored_repair",
    "cut_consumers",
    "emptied_consumers",
    "fill_constants_",
    "refit_from_moments_",
    "ridge_scale",
]


@dataclass(frozen=True)
class Consumer:
    """A linear map that lost inputs.

    Args:
        name: full module path.
        kept: which of its dense inputs are left, (I,).
    """

    name: str
    kept: BoolArray


def cut_consumers(structure: Structure, selection: Selection) -> Iterator[Consumer]:
    """Every consumer that lost some inputs but not all, in the order the model runs them."""
    return (found for found in _consumers(structure, selection) if found.kept.any())


def emptied_consumers(structure: Structure, selection: Selection) -> Iterator[str]:
    """Every consumer that lost all of its inputs."""
    return (found.name for found in _consumers(structure, selection) if not found.kept.any())


def _consumers(structure: Structure, selection: Selection) -> Iterator[Consumer]:
    for place in structure.places:
        if not remains(structure, place, selection):
            continue
        groups = structure.groups_by_place[place.path]
        sites = {group.consumer: group.gate.layout for group in groups if group.consumer}
        for name, layout in sites.items():
            kept = kept_positions(layout, groups, selection)
            if not kept.all():
                yield Consumer(name, kept)


def anchored_repair(
    weight_OI: Tensor, moment_II: Tensor, kept: BoolArray, *, ridge: float
) -> Tensor:
    """The repaired weight of the kept inputs, solved in float64.

    Args:
        weight_OI: the dense weight.
        moment_II: second moment of the dense inputs; any scale.
        kept: which inputs are left.
        ridge: strength of the anchor, relative to the median diagonal of the moment.

    Returns:
        The new weight (O, S), float64.
    """
    stay, out = (torch.from_numpy(np.flatnonzero(mask)) for mask in (kept, ~kept))
    moment = moment_II.double()
    weight = weight_OI.to(moment)
    system = moment[stay][:, stay]
    anchor = ridge * ridge_scale(moment)
    system.diagonal().add_(anchor)
    cross = moment[stay][:, out] @ weight[:, out].T
    return weight[:, stay] + torch.cholesky_solve(cross, factor(system, anchor)).T


def ridge_scale(moment: Tensor) -> float:
    """Median of the diagonal over inputs that are ever active."""
    diagonal = moment.diagonal()
    active = diagonal[diagonal > 0]
    return float(active.median()) if len(active) else 1.0


def fill_constants_(
    model: nn.Module,
    dense_weights: Mapping[str, Tensor],
    names: Iterable[str],
    statistics: Statistics,
) -> None:
    """Let consumers without inputs say what they said in the mean.

    Args:
        model: the cut model; biases are replaced, and added where there is none.
        dense_weights: consumer -> dense weight (O, I).
        names: consumers that lost all inputs.
        statistics: holds `inputs`.
    """
    for name in names:
        linear: Any = model.get_submodule(name)
        constant = dense_weights[name].double() @ statistics.mean("inputs", name)
        _add_to_bias_(linear, constant)


def _add_to_bias_(linear: Any, shift: Tensor) -> None:
    old = linear.bias.detach().double() if linear.bias is not None else 0.0
    linear.bias = nn.Parameter(
        (shift + old).to(linear.weight.dtype), requires_grad=linear.weight.requires_grad
    )


def refit_from_moments_(
    model: nn.Module,
    dense_weights: Mapping[str, Tensor],
    consumers: list[Consumer],
    statistics: Statistics,
    *,
    ridge: float = 0.3,
    bias: bool = False,
) -> None:
    """Repair every consumer of a cut model from the dense model's second moments.

    Args:
        model: the cut model; its consumers' weights are replaced.
        dense_weights: consumer -> dense weight (O, I).
        consumers: those that lost inputs.
        statistics: holds `moments`, and `inputs` for the bias.
        ridge: see `anchored_repair`.
        bias: let the removed inputs' mean move into the bias; adds a bias where there is none, so
            stock classes may refuse the result.
    """
    for consumer in consumers:
        linear: Any = model.get_submodule(consumer.name)
        moment = statistics.mean("moments", consumer.name)
        weight = dense_weights[consumer.name]
        if bias:
            mean = statistics.mean("inputs", consumer.name)
            centred = moment - torch.outer(mean, mean)
            repaired = anchored_repair(weight, centred, consumer.kept, ridge=ridge)
            stay = torch.from_numpy(np.flatnonzero(consumer.kept))
            _add_to_bias_(linear, weight.double() @ mean - repaired @ mean[stay])
        else:
            repaired = anchored_repair(weight, moment, consumer.kept, ridge=ridge)
        set_weight_(linear, repaired)
