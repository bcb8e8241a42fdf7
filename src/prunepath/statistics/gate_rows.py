"""Gate gradients row by row, for who wants to know what units do together.

The sums of `collect.py` keep outer products of gate gradients for small groups only. The gradients
themselves, a few hundred rows of them, say as much of groups of any size: with G of a group scaled
as here, G^T G estimates its block of the Fisher matrix, so removing the set R costs about
1/2 ||G_R 1||^2 per term of the loss.

Shapes: N samples, R rows, U units of a group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prunepath.errors import NumericsError
from prunepath.progress import Progress, track
from prunepath.statistics.collect import checkpointed_layers
from prunepath.statistics.gate_gradients import reading_gates
from prunepath.statistics.run import draw_backward
from prunepath.structure.gates import frozen, gated
from prunepath.structure.units import Structure, UnitGroup

if TYPE_CHECKING:
    from prunepath.data.samples import Samples
    from prunepath.tasks.task import Task

__all__ = ["gate_rows"]

ROWS = 256
"""How many rows are aimed at where samples are few and each has many terms of the loss."""


def gate_rows(
    model: nn.Module,
    structure: Structure,
    task: Task,
    samples: Samples,
    groups: Sequence[UnitGroup],
    *,
    seed: int = 0,
    gates: Mapping[str, Tensor] | None = None,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Gradients of gates on label-free draws (`Task.draw` with the objective `kl`).

    Draws have mean zero and are independent, so sums of them have the same mean outer product as
    many of one: a row is a sample where the loss has one term per sample, a run of tokens where it
    has one per token, and a batch where a router leaves it open whose tokens were seen. What two
    runs of tokens of one window have in common is left out, as it is between tokens in `collect`.

    Args:
        model: the dense model.
        structure: its structure.
        task: what the model is run for.
        samples: calibration samples; their labels are not needed.
        groups: whose gradients are wanted.
        seed: of the draws.
        gates: group -> gates that the model runs with, (units,), read or not; absent: 1. Draws are
            then from the gated model's own answers.
        progress: who listens.

    Returns:
        group -> (R, U) float32 on the CPU, divided by the root of the number of loss terms.

    Raises:
        NumericsError: an answer or a gradient that is not finite.

    Example:
        >>> rows = gate_rows(model, structure, task, samples, groups)  # doctest: +SKIP
        >>> fisher = rows[name].square().sum(0)  # doctest: +SKIP
    """
    per_token = task.loss_rows == "token"
    pieces = 2 ** max(0, math.ceil(math.log2(ROWS / len(samples)))) if per_token else 1
    routed = {group.name: structure.places_by_path[group.place].routed for group in groups}
    found: dict[str, list[Tensor]] = {group.name: [] for group in groups}
    batch_rows: dict[str, Tensor] = {}
    size = 0

    def take(group: UnitGroup, units: Tensor) -> None:
        flat = units.reshape(-1, group.num_units)
        if not len(flat):
            return
        rows = 1  # of several samples' rows in unknown order only the sum is known
        if per_token and routed[group.name]:
            rows = math.gcd(len(flat), size * pieces)
        elif not routed[group.name] and len(flat) % size == 0:
            rows = size * math.gcd(len(flat) // size, pieces)
        own = flat.view(rows, -1, group.num_units).sum(1).cpu()
        before = batch_rows.get(group.name)
        if before is not None:  # layers that share weights run several times, on as many rows
            if before.shape != own.shape:
                before, own = before.sum(0, keepdim=True), own.sum(0, keepdim=True)
            own = before + own
        batch_rows[group.name] = own

    read = {group.name for group in groups}
    unread = {name: gate for name, gate in (gates or {}).items() if name not in read}
    with (
        frozen(model),
        checkpointed_layers(model, structure),
        gated(model, structure, unread),
        reading_gates(model, groups, take, gates=gates),
    ):
        batches = list(samples.batches(task.counts.batch))
        for index in track(progress, range(len(batches)), "reading gate gradients", len(batches)):
            batch, size = batches[index], len(batches[index])
            generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
            draw_backward(model, task, batch, "kl", generator, index)
            for name, rows in batch_rows.items():
                found[name].append(rows)
            batch_rows.clear()
    terms = samples.num_tokens if per_token else len(samples)
    done = {}
    for group in groups:
        parts = found[group.name] or [torch.zeros(1, group.num_units)]  # a router sent it nothing
        done[group.name] = torch.cat(parts) / math.sqrt(terms)
        if not torch.isfinite(done[group.name]).all():
            raise NumericsError(
                f"the gate gradients of '{group.name}' are not finite; load the model in float32 "
                "or bfloat16"
            )
    return done
