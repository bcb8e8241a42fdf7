"""How much of a repair to take: measured, so that it never makes a size worse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

__all__ = ["choose_strength_"]


def choose_strength_(
    model: nn.Module,
    before: Mapping[str, Tensor],
    loss_of: Callable[[], float],
    strengths: Sequence[float] = (1.0, 0.5),
) -> tuple[float, dict[float, float]]:
    """Keep the repair at full strength if held-out text says it helps, else less, else none.

    Args:
        model: the cut and repaired model; its weights are set to the chosen strength.
        before: parameter name -> its value before the repair.
        loss_of: the model's loss on text that no statistics have seen.
        strengths: tried in this order; the first that beats no repair is taken.

    Returns:
        The strength taken, and the held-out loss of everything that was measured.
    """
    after = {name: model.get_parameter(name).detach().clone() for name in before}

    def set_(strength: float) -> None:
        for name, old in before.items():
            blend = after[name] if strength == 1 else torch.lerp(old, after[name], strength)
            with torch.no_grad():
                model.get_parameter(name).copy_(blend)

    set_(0.0)
    losses = {0.0: loss_of()}
    for strength in strengths:
        set_(strength)
        losses[strength] = loss_of()
        if losses[strength] < losses[0.0]:
            return strength, losses
    set_(0.0)
    return 0.0, losses
