"""Backward elimination on a quadratic model of the loss, with and without repair of the rest.

Both functions empty one group in rounds and record when each unit leaves and what that costs in
nats per token, made non-decreasing so that the order of a group is monotone.

- `eliminate_with_refit`: units are columns of a linear map that is repaired after every removal.
  With input second moment H and output-gradient second moment G, removing the columns u costs
      s_u = 1/2 tr(W_u^T G W_u (H^-1_uu)^-1)
  (K-FAC optimal brain surgery) and the rest moves by W <- W - W_u (H^-1_uu)^-1 H^-1_u:.
  The update is linear in W, so it is applied to G^(1/2) W and no product with G is ever repeated.
- `eliminate`: nothing can be repaired; the cost is F_j / 2 + sum of B_jk over what is already out.

Shapes: O outputs, I inputs, U units, C columns per unit, L lanes that lose units together.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from prunepath.structure.axes import IntArray

__all__ = ["eliminate", "eliminate_with_refit"]


def eliminate_with_refit(
    weight_OI: Tensor,
    moment_II: Tensor,
    output_gradient_OO: Tensor,
    owner_I: IntArray,
    num_lanes: int,
    *,
    rounds: int = 48,
    damping: float = 1e-2,
) -> Tensor:
    """Damage of every unit at the moment it leaves, with optimal repair of what is left.

    Args:
        weight_OI: the consumer's weight.
        moment_II: mean outer product of its inputs.
        output_gradient_OO: mean outer product of its output gradients.
        owner_I: unit of every column.
        num_lanes: lanes that lose equally many units in every round.
        rounds: rounds to empty a lane in; more are closer to one unit at a time.
        damping: added to the diagonal of the moment, as a fraction of its mean.

    Returns:
        Non-decreasing damage along each lane's own order, float64, (U,).
    """
    columns_UC = _columns_by_unit(owner_I)
    num_units = len(columns_UC)
    moment = moment_II.double()
    scale = moment.diagonal().mean().clamp_min(1e-30)
    eye = torch.eye(len(moment), dtype=torch.float64, device=moment.device)
    inverse = torch.linalg.inv(moment / scale + damping * eye)
    rows = _root(output_gradient_OO) @ weight_OI.double() * scale.sqrt()
    damage = torch.zeros(num_units, dtype=torch.float64)
    left = torch.arange(num_units).view(num_lanes, -1)  # units still in, lane by lane
    columns = columns_UC.clone()  # column positions in the shrinking `inverse` and `rows`
    level = torch.zeros(num_lanes, dtype=torch.float64)
    lane_width = left.shape[1]
    per_round = max(1, -(-lane_width // rounds))
    while left.shape[1]:
        cost = _removal_cost(rows, inverse, columns[left.reshape(-1)]).view(left.shape)
        count = min(per_round, left.shape[1])
        value, where = cost.topk(count, dim=1, largest=False, sorted=True)
        units = left.gather(1, where)
        for step in range(count):
            level = torch.maximum(level, value[:, step])
            damage[units[:, step]] = level
        keep = torch.ones_like(left, dtype=torch.bool).scatter_(1, where, False)
        left = left[keep].view(num_lanes, -1)
        if not left.shape[1]:
            break
        out = columns[units.reshape(-1)].reshape(-1)
        stay = columns[left.reshape(-1)].reshape(-1)
        rows, inverse = _remove(rows, inverse, out, stay)
        columns[left.reshape(-1)] = torch.arange(len(stay)).view(-1, columns.shape[1])
    return damage


def eliminate(block_UU: Tensor, num_lanes: int) -> Tensor:
    """Damage of every unit at the moment it leaves, interactions counted, nothing repaired.

    Args:
        block_UU: mean outer product of gate gradients.
        num_lanes: lanes that lose one unit each in every round.

    Returns:
        Non-decreasing damage along each lane's own order, float64, (U,).
    """
    block = block_UU.double().cpu()
    own = block.diagonal() / 2
    with_removed = torch.zeros_like(own)
    left = torch.arange(len(block)).view(num_lanes, -1)
    damage = torch.zeros_like(own)
    level = torch.zeros(num_lanes, dtype=torch.float64)
    while left.shape[1]:
        cost = (own + with_removed)[left]
        value, where = cost.min(dim=1)
        units = left.gather(1, where[:, None]).squeeze(1)
        level = torch.maximum(level, value)
        damage[units] = level
        with_removed += block[units].sum(0)
        keep = torch.ones_like(left, dtype=torch.bool).scatter_(1, where[:, None], False)
        left = left[keep].view(num_lanes, -1)
    return damage


def _columns_by_unit(owner_I: IntArray) -> Tensor:
    num_units = int(owner_I.max()) + 1
    return torch.from_numpy(np.argsort(owner_I, kind="stable").reshape(num_units, -1).copy())


def _root(second_moment: Tensor) -> Tensor:
    """R with R^T R equal to the second moment, by eigenvalues: it may be singular."""
    values, vectors = torch.linalg.eigh(second_moment.double())
    return (vectors * values.clamp_min(0).sqrt()).T


def _removal_cost(rows: Tensor, inverse: Tensor, columns_UC: Tensor) -> Tensor:
    """1/2 tr(M_uu (H^-1_uu)^-1) of every unit, M = W^T G W."""
    if columns_UC.shape[1] == 1:
        flat = columns_UC[:, 0]
        return rows[:, flat].square().sum(0) / inverse.diagonal()[flat] / 2
    own = rows[:, columns_UC].permute(1, 2, 0)  # (U, C, O)
    inverse_UCC = inverse[columns_UC[:, :, None], columns_UC[:, None, :]]
    gram_UCC = own @ own.transpose(1, 2)
    return torch.linalg.solve(inverse_UCC, gram_UCC).diagonal(dim1=1, dim2=2).sum(-1) / 2


def _remove(rows: Tensor, inverse: Tensor, out: Tensor, stay: Tensor) -> tuple[Tensor, Tensor]:
    """Take columns out and repair the rest; both tensors shrink to `stay`, in its order."""
    cross = inverse[out][:, stay]
    move = torch.linalg.solve(inverse[out][:, out], cross)
    smaller = torch.addmm(inverse[stay][:, stay], cross.T, move, alpha=-1)
    return torch.addmm(rows[:, stay], rows[:, out], move, alpha=-1), smaller
