"""Closed-form repair of what survives a cut: ridge regression anchored at the kept weights.

A consumer y = W x loses the inputs R and keeps S. The repair
    W_S <- W_S + W_R C_RS (C_SS + lambda I)^-1
minimises E||W x - W' x_S||^2 + lambda ||W' - W_S||^2 with C the second moment of the inputs. It
is the identity when nothing is removed; a ridge that shrinks to zero would change even the dense
model. Lambda is relative to the *median* of C's diagonal: a few massive activations can hold
nearly all of its trace, and a ridge scaled by the mean would then switch the repair off.

A consumer that lost all inputs, as in a sub-layer that was taken out, says one constant: its bias.
The best one, in the same squared error, is what it said in the mean: b + W E[x].

Where the bias moves, too, C is centred and b takes up what W' lacks at the mean input. Where it
alone moves, b <- b + W_R mu_R. The four repairs are those that scores reckon with
(`statistics/repairs.py`).

Shapes: O outputs, I inputs, S kept inputs, R removed inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunepath.statistics.repairs import moment_for, moves_bias, moves_weights
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


def cut_consumers(
    structure: Structure, selection: Selection, *, emptied: bool = False
) -> Iterator[Consumer]:
    """Every consumer that lost inputs, in the order the model runs them.

    Args:
        structure: the dense model's structure.
        selection: units kept.
        emptied: those that lost all inputs, too: a bias can still repair them.
    """
    return (found for found in _consumers(structure, selection) if emptied or found.kept.any())


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
        model: the cut model; biases of these consumers are changed.
        dense_weights: consumer -> dense weight (O, I).
        names: consumers that lost all inputs.
        statistics: holds `inputs`.
    """
    for name in names:
        constant = dense_weights[name].double() @ statistics.mean("inputs", name)
        _add_to_bias_(model.get_submodule(name), constant)


def _add_to_bias_(linear: Any, shift: Tensor) -> None:
    with torch.no_grad():
        linear.bias.add_(shift.to(linear.bias))


def refit_from_moments_(
    model: nn.Module,
    dense_weights: Mapping[str, Tensor],
    consumers: list[Consumer],
    statistics: Statistics,
    *,
    repair: str = "linear",
    ridge: float = 0.3,
) -> None:
    """Repair every consumer of a cut model from the dense model's moments.

    Args:
        model: the cut model; its consumers' weights are replaced.
        dense_weights: consumer -> dense weight (O, I).
        consumers: those that lost inputs.
        statistics: holds `moments`, and `inputs` for the bias.
        repair: what moves, one of `statistics.repairs.REPAIRS`. With `bias` in it every map needs
            a bias (`surgery.biases.give_biases_`).
        ridge: see `anchored_repair`.

    Raises:
        RequestError: the repair is none of the four words, or a sum was not formed.
    """
    for consumer in consumers:
        linear: Any = model.get_submodule(consumer.name)
        moment = moment_for(statistics, consumer.name, repair)
        weight = dense_weights[consumer.name].to(moment)
        stay = torch.from_numpy(np.flatnonzero(consumer.kept))
        repaired = weight[:, stay]
        if moves_weights(repair) and len(stay):
            repaired = anchored_repair(weight, moment, consumer.kept, ridge=ridge)
            set_weight_(linear, repaired)
        if moves_bias(repair):
            mean = statistics.mean("inputs", consumer.name).to(moment.device)
            _add_to_bias_(linear, weight @ mean - repaired @ mean[stay])
