"""Backward elimination on a quadratic model of the loss, with and without repair of the rest.

Both functions empty one group in rounds and record when each unit leaves and what that costs in
nats per token. The record is made strictly increasing along a lane, so that the damage alone tells
the order of a group. With the identity for G the loss is half the squared error of the map's own
output, row by row, and no gradient is needed.

- `eliminate_with_refit`: units are columns of a linear map that is repaired after every removal.
  With input second moment H and output-gradient second moment G, removing the columns u costs
      s_u = 1/2 tr(W_u^T G W_u (H^-1_uu)^-1)
  (K-FAC optimal brain surgery) and the rest moves by W <- W - W_u (H^-1_uu)^-1 H^-1_u:.
  The update is linear in W, so it is applied to G^(1/2) W and no product with G is ever repeated.
- `eliminate`: nothing can be repaired; the cost is B_jj / 2 + sum of B_jk over what is already out.

Both can start with units already out: those keep the damage they are given. That is how an order is
continued with statistics of a model that was cut and repaired on the way.

Shapes: O outputs, I inputs, U units, C columns per unit, L lanes that lose units together,
W units per lane.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from prunepath.statistics.solve import factor
from prunepath.structure.axes import IntArray

__all__ = [
    "coupling_block",
    "eliminate",
    "eliminate_with_refit",
    "energy_by_unit",
    "median_scale",
]

_GAP = 1e-9  # two damages of a lane differ by at least this part: ties would lose the order


def median_scale(diagonal: Tensor) -> float:
    """Median of the positive entries; 1 where there are none.

    What damping and coupling are relative to. A mean would not do: a few massive activations, one
    channel with a thousand times the second moment of the rest, would set it alone.
    """
    positive = diagonal[diagonal > 0]
    return float(positive.double().median()) if len(positive) else 1.0


def eliminate_with_refit(
    weight_OI: Tensor,
    moment_II: Tensor,
    output_gradient_OO: Tensor | None,
    owner_I: IntArray,
    num_lanes: int,
    *,
    rounds: int = 48,
    damping: float = 1e-2,
    removed: Tensor | None = None,
    damage: Tensor | None = None,
    scale_U: Tensor | None = None,
) -> Tensor:
    """Damage of every unit at the moment it leaves, with optimal repair of what is left.

    Args:
        weight_OI: the consumer's weight.
        moment_II: mean outer product of its inputs.
        output_gradient_OO: mean outer product of its output gradients; None: the identity.
        owner_I: unit of every column.
        num_lanes: lanes that lose equally many units in every round.
        rounds: rounds to empty a lane in; more are closer to one unit at a time.
        damping: added to the diagonal of the moment, as a fraction of its median.
        removed: units already out, bool, (U,), equally many in every lane. Their columns are
            repaired for first; columns of zeros (a weight that was repaired before) change nothing.
        damage: damage of the units already out, (U,); other entries are not read.
        scale_U: multiplies the cost of every unit; None: 1.

    Returns:
        Increasing damage along each lane's own order, float64 on the CPU, (U,).
    """
    columns_UC = _columns_by_unit(owner_I)
    lanes = _Lanes(len(columns_UC), num_lanes, removed, damage)
    per_round = -(-len(columns_UC) // (num_lanes * rounds))
    out = columns_UC[lanes.out].reshape(-1)
    stay = columns_UC[lanes.left.reshape(-1)].reshape(-1)
    scale = median_scale(moment_II.diagonal())
    moment = moment_II.double() / scale
    moment.diagonal().add_(damping)
    weight = weight_OI.to(moment.device).double() * scale**0.5
    rows = weight
    if output_gradient_OO is not None:
        rows = _root(output_gradient_OO.to(moment.device)) @ weight
    inverse = torch.cholesky_inverse(factor(moment[stay][:, stay], damping))
    rows = rows[:, stay] + rows[:, out] @ (moment[out][:, stay] @ inverse)
    columns = torch.arange(len(stay)).view(-1, columns_UC.shape[1])  # of each unit left
    while len(columns):
        cost = _removal_cost(rows, inverse, columns).cpu().view(lanes.left.shape)
        if scale_U is not None:
            cost = cost * scale_U[lanes.left]
        gone = lanes.take(cost, per_round)
        if gone.all():
            break
        _remove_(rows, inverse, columns[gone].reshape(-1))
        columns = columns[~gone]
        if columns.numel() < _SHRINK * len(inverse):
            stay = columns.reshape(-1)
            rows = rows.index_select(1, stay)
            inverse = inverse.index_select(0, stay).index_select(1, stay)
            columns = torch.arange(len(stay)).view(columns.shape)
    return lanes.damage


_SHRINK = 0.75  # copying what is left costs more than a few updates of what is not


def eliminate(
    block_UU: Tensor,
    num_lanes: int,
    *,
    rounds: int = 0,
    order: Tensor | None = None,
    removed: Tensor | None = None,
    damage: Tensor | None = None,
) -> Tensor:
    """Damage of every unit at the moment it leaves, interactions counted, nothing repaired.

    Args:
        block_UU: curvature of the gates, nats per token: mean outer product of gate gradients.
        num_lanes: lanes that lose equally many units in every round.
        rounds: rounds to empty a lane in; 0: one unit of every lane at a time.
        order: units to take one by one, first removed first, lanes mixed as they like; None takes
            the cheapest each time.
        removed: units already out, bool, (U,), equally many in every lane. Their interactions
            count as far as the block holds them.
        damage: damage of the units already out, (U,); other entries are not read.

    Returns:
        Increasing damage along each lane's own order, float64 on the CPU, (U,).
    """
    block = block_UU.double().cpu()
    lanes = _Lanes(len(block), num_lanes, removed, damage)
    cost_U = block.diagonal() / 2 + block[lanes.out].sum(0)
    if order is not None:
        place_U = torch.empty(len(block), dtype=torch.int64)
        place_U[order] = torch.arange(len(order))
        left = lanes.left.gather(1, place_U[lanes.left].argsort(dim=1))
        for units in left.T:
            lanes.record(units, cost_U[units])
            cost_U = cost_U + block[units].sum(0)
        return lanes.damage
    per_round = -(-len(block) // (num_lanes * rounds)) if rounds else 1
    while lanes.left.numel():
        units = lanes.left.reshape(-1)
        gone = lanes.take(cost_U[lanes.left], per_round)
        cost_U = cost_U + block[units[gone]].sum(0)
    return lanes.damage


def coupling_block(
    weight_OI: Tensor,
    moment_II: Tensor,
    owner_I: IntArray,
    output_gradient_OO: Tensor | None = None,
) -> Tensor:
    """What removing pairs of units costs together, nothing repaired: B = H o (W^T G W) by unit.

    1/2 1_M^T B 1_M is half the G-weighted squared output error after removing the set M: the
    Kronecker-factored Fisher block of the gates, and with G = 1 half the energy of what M adds to
    the output.

    Args:
        weight_OI: the consumer's weight.
        moment_II: mean outer product of its inputs.
        owner_I: unit of every column.
        output_gradient_OO: mean outer product of its output gradients; None: the identity.

    Returns:
        float64 on the moment's device, (U, U).
    """
    columns = weight_OI.to(moment_II.device).double()
    right = columns
    if output_gradient_OO is not None:
        right = output_gradient_OO.to(moment_II.device) @ columns
    block = moment_II * (columns.T @ right)
    num_units = int(owner_I.max()) + 1
    if num_units == len(owner_I):
        return block
    owner = torch.from_numpy(owner_I.copy()).to(block.device)
    half = block.new_zeros(num_units, len(block)).index_add_(0, owner, block)
    return block.new_zeros(num_units, num_units).index_add_(1, owner, half)


def energy_by_unit(weight_OI: Tensor, moment_II: Tensor, owner_I: IntArray) -> Tensor:
    """E||W_u x_u||^2 of every unit alone: the diagonal of `coupling_block`, without the block.

    Args:
        weight_OI: the consumer's weight.
        moment_II: mean outer product of its inputs.
        owner_I: unit of every column.

    Returns:
        float64, (U,).
    """
    columns_UC = _columns_by_unit(owner_I).to(moment_II.device)
    own = weight_OI.to(moment_II.device).double()[:, columns_UC].permute(1, 0, 2)  # (U, O, C)
    moment_UCC = moment_II[columns_UC[:, :, None], columns_UC[:, None, :]].double()
    return (own @ moment_UCC * own).sum((1, 2))


class _Lanes:
    """Which units of each lane are left, and the increasing record of what leaving cost."""

    def __init__(
        self, num_units: int, num_lanes: int, removed: Tensor | None, damage: Tensor | None
    ) -> None:
        gone = torch.zeros(num_units, dtype=torch.bool) if removed is None else removed.cpu()
        self.out = gone.nonzero().squeeze(1)
        units = torch.arange(num_units)
        self.left = _by_lane(units[~gone], num_lanes)
        self.damage = torch.zeros(num_units, dtype=torch.float64)
        if damage is not None:
            self.damage[gone] = damage.cpu().double()[gone]
        self._lane = units // (num_units // num_lanes)
        self._level = self.damage.view(num_lanes, -1).amax(1)

    def take(self, cost_LW: Tensor, count: int) -> Tensor:
        """Take the cheapest `count` of every lane out; bool of those left before, (L * W,)."""
        value, where = cost_LW.topk(min(count, cost_LW.shape[1]), dim=1, largest=False)
        units = self.left.gather(1, where)
        for turn in range(units.shape[1]):
            self.record(units[:, turn], value[:, turn])
        gone = torch.zeros_like(self.left, dtype=torch.bool).scatter_(1, where, True)
        self.left = _by_lane(self.left[~gone], len(self.left))
        return gone.view(-1)

    def record(self, units: Tensor, cost: Tensor) -> None:
        """Note what one unit of every lane cost."""
        lane = self._lane[units]
        self._level[lane] = torch.maximum(self._level[lane] * (1 + _GAP), cost)
        self.damage[units] = self._level[lane]


def _by_lane(units: Tensor, num_lanes: int) -> Tensor:
    return units.view(num_lanes, len(units) // num_lanes)


def _columns_by_unit(owner_I: IntArray) -> Tensor:
    num_units = int(owner_I.max()) + 1
    return torch.from_numpy(np.argsort(owner_I, kind="stable").reshape(num_units, -1).copy())


def _root(second_moment: Tensor) -> Tensor:
    """R with R^T R equal to the second moment, by eigenvalues: it may be singular."""
    values, vectors = torch.linalg.eigh(second_moment.double())
    root: Tensor = (vectors * values.clamp_min(0).sqrt()).T
    return root


def _removal_cost(rows: Tensor, inverse: Tensor, columns_UC: Tensor) -> Tensor:
    """1/2 tr(M_uu (H^-1_uu)^-1) of every unit, M = W^T G W; columns in ascending order."""
    if columns_UC.shape[1] == 1:
        column_U = columns_UC.squeeze(1).to(rows.device)
        return (rows.square().sum(0) / inverse.diagonal())[column_U] / 2
    own = rows[:, columns_UC].permute(1, 2, 0)  # (U, C, O)
    inverse_UCC = inverse[columns_UC[:, :, None], columns_UC[:, None, :]]
    gram_UCC = own @ own.transpose(1, 2)
    product_UCC: Tensor = torch.linalg.solve(inverse_UCC, gram_UCC)
    return product_UCC.diagonal(dim1=1, dim2=2).sum(-1) / 2


def _remove_(rows: Tensor, inverse: Tensor, out: Tensor) -> None:
    """Take columns out and repair the rest in place; what is out is left as rounding noise."""
    out = out.to(inverse.device)
    across = inverse.index_select(0, out)
    move = torch.linalg.solve(across.index_select(1, out), across)
    inverse.addmm_(across.T, move, alpha=-1)
    rows.addmm_(rows.index_select(1, out), move, alpha=-1)
