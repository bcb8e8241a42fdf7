"""The real loss as a function of the gates, for methods that run the model: value and gradient.

Only gates require gradients. The dense answers are recomputed for every batch: the logits of a
whole calibration set would be larger than the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from prunepath.data.samples import Samples
from prunepath.errors import NumericsError
from prunepath.methods.method import SearchContext
from prunepath.structure.gates import gated
from prunepath.structure.units import UnitGroup

__all__ = ["GateLoss"]


class GateLoss:
    """Mean loss per loss row of the gated model, over fixed batches in a fixed order.

    Args:
        context: model, task, samples and objective; the model must be `frozen`.
        groups: groups that get gates; everything flat below is in their order.
        batch_windows: samples in one forward pass.
    """

    def __init__(
        self, context: SearchContext, groups: Sequence[UnitGroup], batch_windows: int
    ) -> None:
        self._model = context.model
        self._structure = context.structure
        self._task = context.task
        self._kl = context.objective == "kl"
        self._batches = list(context.samples.batches(batch_windows))
        self._device = next(context.model.parameters()).device
        self._names = [group.name for group in groups]
        self._sizes = [group.num_units for group in groups]

    @property
    def num_batches(self) -> int:
        """Batches in one round through the calibration samples."""
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
            The loss (nats per token for language models) and its gradient, float64, on the CPU.

        Raises:
            NumericsError: the loss or its gradient is not finite.
        """
        flat = mask.to(self._device, torch.float32).requires_grad_()
        total = torch.zeros(len(mask), dtype=torch.float64)
        value = 0.0
        num_samples = sum(len(self._batches[number]) for number in batches)
        for number, batch, inputs in self._chosen(batches):
            dense = self._dense(inputs) if self._kl else None
            with torch.enable_grad(), gated(self._model, self._structure, self.split(flat)):
                loss = self._loss(self._task.output(self._model, inputs), dense, batch)
                (gradient,) = torch.autograd.grad(loss, flat)
            share = len(batch) / num_samples
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
        """What an unsurprising loss looks like, over all batches.

        For the objective `task` the loss of the dense model. Label-free the dense model's loss is
        0, and the level is how far an answer of zeros, which says nothing, is from its answers;
        for distributions over a vocabulary it is their entropy, log V less that distance, so that
        entropy + divergence is a cross-entropy as the task loss is.
        """
        total, num_samples = 0.0, 0
        for _, batch, inputs in self._chosen(range(self.num_batches)):
            dense = self._dense(inputs)
            if self._kl:
                with torch.no_grad():
                    blank = self._task.distance(torch.zeros_like(dense), dense, batch).item()
                tokens = self._task.loss_rows == "token"
                level = math.log(dense.shape[-1]) - blank if tokens else blank
            else:
                level = self._loss(dense, None, batch).item()
            total += level * len(batch)
            num_samples += len(batch)
        return total / num_samples

    def _chosen(self, batches: Sequence[int]) -> Iterator[tuple[int, Samples, dict[str, Tensor]]]:
        for number in batches:
            batch = self._batches[number]
            yield number, batch, batch.to(self._device)

    @torch.no_grad()
    def _dense(self, inputs: dict[str, Tensor]) -> Tensor:
        return self._task.output(self._model, inputs)

    def _loss(self, output: Tensor, dense: Tensor | None, batch: Samples) -> Tensor:
        if dense is not None:
            return self._task.distance(output, dense, batch)
        return self._task.loss(output, batch)
