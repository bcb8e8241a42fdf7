"""Split linearized Bregman iteration on gates: the dynamics behind every SPP path.

Gates M start at 1, a sparse twin Gamma and its dual V at 0, and follow

    dM/dt = -kappa (grad L(M) + (M - Gamma) / nu)
    dV/dt = (M - Gamma) / nu,      Gamma = kappa * shrink(V, lambda)

(Solution Path Pruning, arXiv 2501.03289; the iteration is that of DessiLBI). The pull towards
Gamma = 0 draws every gate down, the loss holds up the ones it needs, and a unit enters the path
when its V reaches lambda. The authors' public code leaves the pull out; here it is always on.

On L = 1/2 h (M - 1)^2 a gate that has not entered goes to M* = h / (h + 1/nu), so that

    V(t) = 1/nu (M* t + (1 - M*) (1 - exp(-kappa c t)) / (kappa c)),    c = h + 1/nu,

and it enters at about nu (lambda - (1 - M*)^2 / kappa) / M*: early where the curvature is large.
`dual_at` is that V and `curvature_from` its inverse, which turns an entry time back into the
curvature a run has measured, in nats per token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Bregman", "BregmanState", "curvature_from", "dual_at", "importance_order"]

_LARGEST = 1e4  # h nu beyond this cannot be told from an entry time
_SMALLEST = 1e-9


@dataclass(frozen=True, kw_only=True)
class Bregman:
    """Constants of the iteration.

    Args:
        alpha: step length; time is steps times alpha.
        nu: coupling; small pulls hard.
        threshold: lambda, the dual value at which a unit enters.
        kappa: damping.
        two_sided: let a unit enter at -lambda as well.
    """

    alpha: float
    nu: float
    threshold: float
    kappa: float = 1.0
    two_sided: bool = False

    def step_(
        self,
        state: BregmanState,
        gradient: Tensor,
        settle: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """One step of all gates.

        Args:
            state: changed in place.
            gradient: of the loss at the current gates, already divided by its scale, (U,).
            settle: a positive definite map applied to the force on M. It changes how fast a gate
                settles and not where, and is what keeps stiff gates inside the step bound
                alpha < 2 / (kappa (Lip + 1/nu)). None: plain gradient steps.
        """
        pull = (state.mask - state.twin) / self.nu
        force = gradient + pull
        state.mask = state.mask - self.kappa * self.alpha * (settle(force) if settle else force)
        before = state.dual
        state.dual = before + self.alpha * pull
        excess = self.reach(state) - self.threshold
        state.twin = self.kappa * state.dual.sign() * excess.clamp_min(0)
        newly = (excess > 0) & state.time.isinf()
        # The dual moves on a line within a step, so the crossing is known more finely than a step.
        crossing = self.threshold * state.dual.sign() - before
        part = crossing[newly] / (state.dual - before)[newly]
        state.time[newly] = self.alpha * (state.step + part)
        state.step += 1

    def reach(self, state: BregmanState) -> Tensor:
        """What is compared with the threshold: V, or |V| where both signs may enter."""
        return state.dual.abs() if self.two_sided else state.dual


@dataclass
class BregmanState:
    """Everything that changes; float64, (U,) each.

    Args:
        mask: M, the gates.
        dual: V.
        twin: Gamma.
        time: entry times, infinite before entry.
        step: steps made.
    """

    mask: Tensor
    dual: Tensor
    twin: Tensor
    time: Tensor
    step: int = 0

    @classmethod
    def start(cls, num_units: int) -> BregmanState:
        """All gates open, nothing entered."""
        zeros = torch.zeros(num_units, dtype=torch.float64)
        return cls(zeros + 1, zeros.clone(), zeros.clone(), zeros + torch.inf)

    @property
    def entered(self) -> Tensor:
        """Whether a unit has entered, (U,)."""
        return self.time.isfinite()


def importance_order(bregman: Bregman, state: BregmanState, curvature: Tensor) -> Tensor:
    """Units by importance, most important first: a total order, (U,).

    Units that entered come by entry time. The rest comes by final V, which a longer run would
    bring to the threshold in that order, then by the curvature known beforehand, then by index.
    """
    reach = bregman.reach(state).masked_fill(state.entered, 0)
    keys = np.stack([-curvature.numpy(), -reach.numpy(), state.time.numpy()])
    return torch.from_numpy(np.lexsort(keys))  # the last key decides first


def dual_at(curvature: Tensor, time: Tensor, nu: float, kappa: Tensor | float = 1.0) -> Tensor:
    """V of a unit that has not entered yet, on a diagonal quadratic loss.

    Args:
        curvature: h, (U,).
        time: (U,).
        nu: coupling.
        kappa: damping, one value or (U,).
    """
    rate = curvature + 1 / nu
    rest = curvature / rate
    transient = -torch.expm1(-kappa * rate * time) / (kappa * rate)
    return (rest * time + (1 - rest) * transient) / nu


def curvature_from(
    time: Tensor, dual: Tensor, nu: float, kappa: Tensor | float = 1.0, halvings: int = 200
) -> Tensor:
    """The curvature h at which `dual_at(h, time) = dual`, by bisection of log h; (U,).

    V grows with h at every time, so there is one answer. Pass the entry time and lambda for units
    that entered, the final time and V for the others. Interactions between units can push a gate
    above 1 or below 0, where no h answers; those end at 1e4 / nu and 1e-9 / nu.
    """
    low = torch.full_like(dual, _SMALLEST / nu).log()
    high = torch.full_like(dual, _LARGEST / nu).log()
    for _ in range(halvings):
        middle = (low + high) / 2
        below = dual_at(middle.exp(), time, nu, kappa) < dual
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return ((low + high) / 2).exp()
