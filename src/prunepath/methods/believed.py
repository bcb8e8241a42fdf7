"""Interactions that are more than noise: a curvature block as far as its samples vouch for it.

A block of U units is a mean over n terms of the loss. Where n is not far above U, or a few terms
are much larger than the rest, most of its off-diagonal entries are chance, and a greedy removal
finds those by which units seem to cancel each other. An entry therefore counts as far as it
exceeds its own standard error.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["believed_block"]


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
