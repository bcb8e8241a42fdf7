"""How far a gated model is from the dense one, and which gates would bring it nearer.

At the dense model the distance from itself has no slope. Once gates are closed it has one, and the
slope of a closed gate says what opening it would do. Exact gradients of the distance, no draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prunepath.errors import NumericsError
from prunepath.progress import Progress, track
from prunepath.structure.gates import frozen, gated
from prunepath.structure.units import Structure, UnitGroup

if TYPE_CHECKING:
    from prunepath.data.samples import Samples
    from prunepath.tasks.task import Task

__all__ = ["gate_slopes"]


def gate_slopes(
    model: nn.Module,
    structure: Structure,
    task: Task,
    samples: Samples,
    groups: Sequence[UnitGroup],
    gates: Mapping[str, Tensor],
    *,
    progress: Progress | None = None,
) -> tuple[float, dict[str, Tensor]]:
    """Mean distance to the dense answers, and its gradient in the gates.

    Args:
        model: the dense model.
        structure: its structure.
        task: what the model is run for.
        samples: samples; their labels are not needed.
        groups: whose gradients are wanted.
        gates: group -> gates that the model runs with, (units,); absent: 1.
        progress: who listens.

    Returns:
        The distance per loss row, and group -> gradient (units,), float64 on the CPU.

    Raises:
        NumericsError: the distance or a gradient is not finite.

    Example:
        >>> distance, slopes = gate_slopes(model, structure, task, samples, groups, gates)
        ... # doctest: +SKIP
    """
    leaves = {
        group.name: gates.get(group.name, torch.ones(group.num_units))
        .detach()
        .clone()
        .requires_grad_()
        for group in groups
    }
    total = 0.0
    slopes = {name: torch.zeros(len(leaf), dtype=torch.float64) for name, leaf in leaves.items()}
    device = next(model.parameters()).device
    with frozen(model):
        batches = list(samples.batches(task.counts.batch))
        for batch in track(progress, batches, "reading gate slopes", len(batches)):
            inputs = batch.to(device)
            with torch.no_grad():
                dense = task.output(model, inputs)
            with torch.enable_grad(), gated(model, structure, {**gates, **leaves}):
                distance = task.distance(task.output(model, inputs), dense, batch)
                found = torch.autograd.grad(distance, list(leaves.values()), allow_unused=True)
            share = len(batch) / len(samples)
            total += share * distance.item()
            for name, gradient in zip(leaves, found, strict=True):
                if gradient is not None:  # no token came by an expert
                    slopes[name] += share * gradient.double().cpu()
    for name, slope in slopes.items():
        if not torch.isfinite(slope).all():
            raise NumericsError(
                f"the slopes of the gates of '{name}' are not finite; load the model in float32 "
                "or bfloat16"
            )
    return _finite(total), slopes


def _finite(distance: float) -> float:
    if not math.isfinite(distance):
        raise NumericsError(
            f"the gated model's distance to the dense one is {distance}; load the model in float32 "
            "or bfloat16"
        )
    return distance
