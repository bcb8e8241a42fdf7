"""What a selection does to a model, told without cutting it: a candidate costs a forward pass.

Gates at 0 equal physical removal, so the distance of the gated model's answers from the dense ones
is that of the cut model before any repair. Dense answers are kept, as far as they fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prunepath.errors import NumericsError
from prunepath.structure.gates import frozen, gated, gates_of
from prunepath.structure.selection import Selection
from prunepath.structure.units import Structure

if TYPE_CHECKING:
    from prunepath.data.samples import Samples
    from prunepath.tasks.task import Task

__all__ = ["GatedModel"]

_KEPT_BYTES = 2 * 10**9
"""Dense answers beyond that are computed again each time: logits of a large vocabulary may not
fit."""


class GatedModel:
    """The dense model with the gates of any selection.

    Args:
        model: the dense model; its weights are not touched.
        structure: its structure.
        task: says how far an answer is from the dense one, without labels.
        samples: what it is run on.
        batch: samples of one forward pass; None: the task's own count.

    Example:
        >>> trial = GatedModel(model, structure, task, samples)  # doctest: +SKIP
        >>> trial.distance(selection)  # doctest: +SKIP
        0.314
    """

    def __init__(
        self,
        model: nn.Module,
        structure: Structure,
        task: Task,
        samples: Samples,
        *,
        batch: int | None = None,
    ) -> None:
        self._model, self._structure, self._task = model, structure, task
        self._batches = list(samples.batches(task.counts.batch if batch is None else batch))
        self._dense: dict[int, Tensor] = {}
        self._device = next(model.parameters()).device
        self.passes = 0
        """Forward passes so far."""

    @contextmanager
    def showing(self, selection: Selection) -> Iterator[nn.Module]:
        """The model, answering as if it had been cut to a selection, while inside.

        Args:
            selection: units kept.

        Raises:
            RequestError: the selection does not fit the structure.
        """
        selection.validate(self._structure)
        gates = gates_of(selection, self._structure)
        with frozen(self._model), gated(self._model, self._structure, gates):
            yield self._model

    def distance(self, selection: Selection, samples: int = 0, *, worst: bool = False) -> float:
        """How far its answers are from the dense ones.

        Args:
            selection: units kept.
            samples: the first batches that hold so many; 0: all.
            worst: of the worst batch, instead of the mean over all.

        Returns:
            In the unit of the task's distance: nats per token for language models.

        Raises:
            NumericsError: an answer is not finite.
        """
        numbers = self._first(samples)
        dense = [self._answer(number) for number in numbers]
        found, weights = [], []
        with self.showing(selection), torch.no_grad():
            for number, expected in zip(numbers, dense, strict=True):
                batch = self._batches[number]
                own = self._task.output(self._model, batch.to(self._device))
                self.passes += 1
                found.append(float(self._task.distance(own, expected, batch)))
                per_token = self._task.loss_rows == "token"
                weights.append(batch.num_tokens if per_token else len(batch))
        if not all(map(math.isfinite, found)):
            raise NumericsError(
                "the answers of a gated model hold NaN or infinity; check the model's weights, or "
                "load it in float32 or bfloat16 instead of float16"
            )
        if worst:
            return max(found)
        return sum(w * each for w, each in zip(weights, found, strict=True)) / sum(weights)

    def _first(self, samples: int) -> range:
        """Batches that hold at least so many samples."""
        held = 0
        for number, batch in enumerate(self._batches):
            if samples and held >= samples:
                return range(number)
            held += len(batch)
        return range(len(self._batches))

    @torch.no_grad()
    def _answer(self, number: int) -> Tensor:
        if number in self._dense:
            return self._dense[number]
        with frozen(self._model):
            answer = self._task.output(self._model, self._batches[number].to(self._device))
        self.passes += 1
        held = sum(each.numel() * each.element_size() for each in self._dense.values())
        if held + answer.numel() * answer.element_size() <= _KEPT_BYTES:
            self._dense[number] = answer
        return answer
