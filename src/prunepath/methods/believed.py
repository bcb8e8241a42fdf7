"""Curvature as far as its samples vouch for it: single units, and interactions of two.

A block of U units is a mean over n terms of the loss. Where n is not far above U, or a few terms
are much larger than the rest, most of its off-diagonal entries are chance, and a greedy removal
finds those by which units seem to cancel each other. An entry therefore counts as far as it
exceeds its own standard error. A single unit's curvature is a mean of squares of the same terms:
where a few of them hold most of it, units of a group differ by chance more than by anything else.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["believed_block", "believed_diagonal"]


def believed_block(block_UU: Tensor, fourths_UU: Tensor, terms: int, errors: float) -> Tensor:
    """A curvature block with its off-diagonal entries moved towards zero by their own errors.

    Adaptive thresholding of a covariance matrix, entry by entry (Cai and Liu, JASA 2011; soft, as
    in Rothman, Levina and Zhu, JASA 2009):

        B'_uv = sign(B_uv) max(0, |B_uv| - errors * s_uv),  s_uv^2 = (E g_u^2 g_v^2 - B_uv^2) / n

    Unlike there the bound is a fixed number of standard errors, without the root of log U.

    Args:
        block_UU: B, mean outer product of gate gradients.
        fourths_UU: mean outer product of their squares.
        terms: n, how many terms of the loss both are means over.
        errors: how many standard errors an entry loses; 0 keeps the block.

    Returns:
        (U, U), the diagonal as it was. It may have negative eigenvalues.
    """
    variance = (fourths_UU - block_UU.square()).clamp_min(0) / terms
    size = (block_UU.abs() - errors * variance.sqrt()).clamp_min(0)
    found = torch.sign(block_UU) * size
    found.diagonal().copy_(block_UU.diagonal())
    return found


def believed_diagonal(squares_U: Tensor, sizes_U: Tensor, fourths_U: Tensor, terms: int) -> Tensor:
    """Curvatures of a group's units, moved towards what their mean absolute gradients say.

    For gradients of one shape E g^2 is proportional to (E |g|)^2, and the latter hardly feels a few
    large terms. So log E g^2 = log (E |g|)^2 + m + a unit's own deviation, m the group's mean. Own
    deviations vary by tau^2 and are measured with an error of variance e_u^2 = (E g_u^4 /
    (E g_u^2)^2 - 1) / n. What is believed of one is the mean given both, of normal deviations
    (empirical Bayes; Efron and Morris, JASA 1973):

        log h_u = log E g_u^2 - w_u (d_u - m),   d_u = log E g_u^2 - log (E |g_u|)^2
        w_u = e_u^2 / (e_u^2 + tau^2),           tau^2 = max(0, var(d) - mean(e^2))

    Args:
        squares_U: mean squared gate gradient of every unit.
        sizes_U: mean absolute one.
        fourths_U: mean fourth power.
        terms: n, how many terms of the loss all three are means over.

    Returns:
        (U,). Units without any gradient keep their zero, and a group of one its value.
    """
    alive = (squares_U > 0) & (sizes_U > 0)
    if int(alive.sum()) < _FEWEST:
        return squares_U
    squares, sizes, fourths = (each[alive].double() for each in (squares_U, sizes_U, fourths_U))
    own = squares.log() - 2 * sizes.log()
    error = (fourths / squares.square() - 1).clamp_min(0) / terms
    spread = (own.var() - error.mean()).clamp_min(0)
    weight = error / (error + spread).clamp_min(torch.finfo(torch.float64).tiny)
    believed = squares_U.double().clone()
    believed[alive] = (squares.log() - weight * (own - own.mean())).exp()
    return believed


_FEWEST = 3  # a variance of fewer says nothing
