"""How much of a repair to take: measured, so that it never makes a size worse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunepath.errors import NumericsError

__all__ = ["Chosen", "choose_strength_"]

_CLEAR = 4.0  # standard errors


@dataclass(frozen=True)
class Chosen:
    """A strength, and what was measured to choose it.

    Args:
        strength: 1 takes the whole repair, 0 none of it.
        without: held-out loss of the cut model, mean over the rows that were measured.
        taken: the same at the strength taken.
    """

    strength: float
    without: float
    taken: float


def choose_strength_(
    model: nn.Module,
    before: Mapping[str, Tensor],
    parts: Sequence[Callable[[], Tensor]],
    strengths: Sequence[float] = (1.0, 0.5),
) -> Chosen:
    """Keep the repair at full strength if held-out samples say it helps, else less, else none.

    A strength is compared with no repair row by row, and part by part: when the mean difference is
    four standard errors above zero, the parts that are left would say the same.

    Args:
        model: the cut and repaired model; its weights are set to the chosen strength.
        before: parameter name -> its value before the repair.
        parts: each gives the model's losses on one part of samples that no statistics have seen,
            float64, one per loss row.
        strengths: tried in this order; the first that beats no repair is taken.

    Raises:
        NumericsError: the loss of the cut model is not finite.
    """
    after = {name: model.get_parameter(name).detach().clone() for name in before}

    def set_(strength: float) -> None:
        for name, old in before.items():
            blend = after[name] if strength == 1 else torch.lerp(old, after[name], strength)
            with torch.no_grad():
                model.get_parameter(name).copy_(blend)

    measured: dict[tuple[float, int], Tensor] = {}

    def losses(strength: float, count: int) -> Tensor:
        missing = [part for part in range(count) if (strength, part) not in measured]
        if missing:
            set_(strength)
        for part in missing:
            measured[strength, part] = parts[part]()
        return torch.cat([measured[strength, part] for part in range(count)])

    for strength in strengths:
        for count in range(1, len(parts) + 1):
            repaired, cut = losses(strength, count), losses(0.0, count)
            if not torch.isfinite(cut).all():
                raise NumericsError(
                    "the cut model's loss on held-out samples is not finite; check the weights for "
                    "NaN or infinity, or load the model in float32"
                )
            if _clearly_less(repaired, cut):
                break
        if repaired.mean() < cut.mean():
            set_(strength)
            return Chosen(strength, float(cut.mean()), float(repaired.mean()))
    set_(0.0)
    return Chosen(0.0, float(cut.mean()), float(cut.mean()))


def _clearly_less(losses: Tensor, others: Tensor) -> bool:
    gain = others - losses
    if len(gain) < 2:
        return False
    return bool(gain.mean() > _CLEAR * gain.std() / len(gain) ** 0.5)
