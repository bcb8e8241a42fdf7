"""The real loss as a function of the gates, for methods that run the model: value and gradient.

Only gates require gradients. The dense logits are recomputed for every batch: kept for a whole
calibration set they would be larger than the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from prunepath.errors import NumericsError
from prunepath.methods.method import SearchContext
from prunepath.statistics.objective import kl_to_dense
from prunepath.structure.gates import gated
from prunepath.structure.units import Structure, UnitGroup

__all__ = ["GateLoss", "finest_groups"]


def finest_groups(structure: Structure) -> tuple[UnitGroup, ...]:
    """The group with the most units at every gate site.

    Coarser units of the same site (a head beside its own coordinates) would multiply the same
    activation twice, and a run would close both halfway and measure neither.
    """
    best: dict[tuple[str, str], UnitGroup] = {}
    for group in structure.groups:
        site = (group.gate.module, group.gate.side)
        if site not in best or group.num_units > best[site].num_units:
            best[site] = group
    return tuple(group for group in structure.groups if group in best.values())


class GateLoss:
    """Mean loss per token of the gated model, over fixed batches in a fixed order.

    Args:
        context: model, calibration ids and objective; the model must be `frozen`.
        groups: groups that get gates; everything flat below is in their order.
        batch_windows: windows in one forward pass.
    """

    def __init__(
        self, context: SearchContext, groups: Sequence[UnitGroup], batch_windows: int
    ) -> None:
        self._model = context.model
        self._structure = context.structure
        self._kl = context.objective == "kl"
        self._batches = torch.split(context.ids, batch_windows)
        self._device = next(context.model.parameters()).device
        self._names = [group.name for group in groups]
        self._sizes = [group.num_units for group in groups]

    @property
    def num_batches(self) -> int:
        """Batches in one round through the calibration windows."""
        return len(self._batches)

    def batches_of(self, step: int, per_step: int) -> list[int]:
        """Batch numbers of a step: all of them, or the next `per_step` in a fixed cycle."""
        if per_step <= 0 or per_step >= self.num_batches:
            return list(range(self.num_batches))
        return [(step * per_step + i) % self.num_batches for i in range(per_step)]

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Group name -> its part of a flat tensor."""
        return dict(zip(self._names, torch.split(flat, self._sizes), strict=True))

    def gradient(self, mask: Tensor, batches: Sequence[int], step: int = 0) -> tuple[float, Tensor]:
        """Loss and its gradient in the gates.

        Args:
            mask: gates, float64, (units of all groups,).
            batches: batch numbers.
            step: number of the step, for messages.

        Returns:
            Nats per token, and the gradient, float64, on the CPU.

        Raises:
            NumericsError: the loss or its gradient is not finite.
        """
        flat = mask.to(self._device, torch.float32).requires_grad_()
        total = torch.zeros(len(mask), dtype=torch.float64)
        value = 0.0
        windows = sum(len(self._batches[number]) for number in batches)
        for number, ids in self._chosen(batches):
            dense = self._dense_logits(ids)
            with torch.enable_grad(), gated(self._model, self._structure, self.split(flat)):
                logits = self._model(input_ids=ids, use_cache=False).logits
                loss = self._loss(logits, dense, ids)
                (gradient,) = torch.autograd.grad(loss, flat)
            share = len(ids) / windows
            gradient = gradient.double().cpu()
            if not math.isfinite(loss.item()) or not torch.isfinite(gradient).all():
                raise NumericsError(
                    f"at step {step}, batch {number}, the loss is {loss.item()} and "
                    f"{int((~torch.isfinite(gradient)).sum())} of {len(gradient)} gate gradients "
                    "are not finite; check the model's weights, or load it in float32"
                )
            value += share * loss.item()
            total += share * gradient
        return value, total

    def dense_level(self) -> float:
        """What an unsurprising loss looks like, over all batches, in nats per token.

        The task loss of the dense model; for the divergence, which is 0 there, the entropy of the
        dense predictions, so that entropy + divergence is a cross-entropy as the task loss is.
        """
        value, windows = 0.0, 0
        for _, ids in self._chosen(range(self.num_batches)):
            with torch.no_grad():
                logits = self._model(input_ids=ids, use_cache=False).logits
                if self._kl:
                    log = torch.log_softmax(logits.float(), dim=-1)
                    loss = -(log.exp() * log).sum(-1).mean()
                else:
                    loss = self._loss(logits, logits, ids)
            value += loss.item() * len(ids)
            windows += len(ids)
        return value / windows

    def _chosen(self, batches: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
        for number in batches:
            yield number, self._batches[number].to(self._device)

    def _dense_logits(self, ids: Tensor) -> Tensor:
        if not self._kl:
            return torch.empty(0)
        with torch.no_grad():
            logits: Tensor = self._model(input_ids=ids, use_cache=False).logits
        return logits

    def _loss(self, logits: Tensor, dense: Tensor, ids: Tensor) -> Tensor:
        if self._kl:
            return kl_to_dense(logits, dense)
        return functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())
