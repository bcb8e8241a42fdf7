"""The SPP flow on a quadratic model of the loss: an order for one group, in seconds.

With L(M) = 1/2 (1 - M)^T B (1 - M) the split linearized Bregman iteration needs no model run. It is
deterministic and uses the full gradient, so its convergence theorem applies.

Where it deviates from the plain iteration: B mixes curvatures a thousandfold apart, and a plain
step below 2 / (kappa (Lip + 1/nu)) would take as many times more steps. The mask takes backward
Euler steps instead: the force is divided by I + kappa alpha (B + I/nu), factored once. That is
stable at any step length and the same flow as alpha goes to 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunepath.methods.bregman import Bregman, BregmanState, importance_order
from prunepath.methods.elimination import median_scale

__all__ = ["flow_order"]


def flow_order(
    block_UU: Tensor,
    *,
    coupling: float = 1.0,
    threshold: float = 5.0,
    kappa: float = 1.0,
    step: float = 0.1,
    max_steps: int = 500,
    two_sided: bool = False,
    removed: Tensor | None = None,
) -> Tensor:
    """Units of one group, first removed (last entered) first.

    Args:
        block_UU: curvature B of the gates.
        coupling: nu in units of 1 / median(diagonal of B).
        threshold: lambda.
        kappa: damping.
        step: alpha as a fraction of nu.
        max_steps: steps; units that have not entered by then go first, by final V.
        two_sided: let a unit enter at -lambda as well.
        removed: units already out, bool, (U,): their gates are 0 and they are not in the result.

    Returns:
        Indices of the units left, int64.
    """
    block = block_UU.double().cpu()
    gone = torch.zeros(len(block), dtype=torch.bool) if removed is None else removed.cpu()
    left = (~gone).nonzero().squeeze(1)
    own = block[left][:, left]
    scale = median_scale(own.diagonal())
    own = own / scale
    from_gone = block[left][:, gone].sum(1) / scale
    bregman = Bregman(
        alpha=step * coupling, nu=coupling, threshold=threshold, kappa=kappa, two_sided=two_sided
    )
    stiff = kappa * bregman.alpha * own
    stiff.diagonal().add_(1 + kappa * step)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(stiff))
    state = BregmanState.start(len(left))
    for _ in range(max_steps):
        gradient = own @ (state.mask - 1) - from_gone
        bregman.step_(state, gradient, lambda force: inverse @ force)
        if state.entered.all():
            break
    return left[importance_order(bregman, state, own.diagonal())].flip(0)
