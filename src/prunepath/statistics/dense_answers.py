"""How far the answers of any model are from the dense model's, on the same samples, without labels.

A metric over a few hundred samples hardly tells two cuts apart; the mean distance of their answers
does. Dense answers are kept, as far as they fit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prunepath.errors import NumericsError
from prunepath.structure.gates import frozen

if TYPE_CHECKING:
    from prunepath.data.samples import Samples
    from prunepath.tasks.task import Task

__all__ = ["DenseAnswers"]

_KEPT_BYTES = 2 * 10**9
"""Dense answers beyond that are computed again each time: logits of a large vocabulary may not
fit."""


class DenseAnswers:
    """The dense model's answers to samples, batch by batch.

    Args:
        model: the dense model.
        task: says what an answer is, and how far another one is from it.
        samples: what all models are run on.
        batch: samples of one forward pass; None: the task's own count.

    Example:
        >>> answers = DenseAnswers(dense, task, samples)  # doctest: +SKIP
        >>> answers.distance(cut_model, answers.first())  # doctest: +SKIP
        0.314
    """

    def __init__(
        self, model: nn.Module, task: Task, samples: Samples, *, batch: int | None = None
    ) -> None:
        self._model, self._task = model, task
        self._batches = list(samples.batches(task.counts.batch if batch is None else batch))
        self._kept: dict[int, Tensor] = {}
        self.passes = 0
        """Forward passes so far, of whatever model."""

    def thin_(self, samples: int, num_bytes: int) -> None:
        """Leave out batches, evenly: data may be sorted. At least one stays.

        Args:
            samples: how many are enough.
            num_bytes: what the answers to those that stay may take; few stay if they are large.
        """
        if self._batches:
            first = self._answer(0)
            fit = max(1, num_bytes // (first.numel() * first.element_size()))
            step = max(sum(map(len, self._batches)) // samples, -(-len(self._batches) // fit), 1)
            self._batches, self._kept = self._batches[::step], {0: first}

    @property
    def samples(self) -> int:
        """How many there are answers to."""
        return sum(map(len, self._batches))

    def first(self, samples: int = 0) -> list[Tensor]:
        """Dense answers to the first batches that hold at least so many samples; 0: to all."""
        found: list[Tensor] = []
        held = 0
        for number, batch in enumerate(self._batches):
            if samples and held >= samples:
                break
            found.append(self._answer(number))
            held += len(batch)
        return found

    def distance(self, model: nn.Module, dense: Sequence[Tensor], *, worst: bool = False) -> float:
        """How far a model's answers to the first batches are from the dense ones.

        Args:
            model: dense, gated or cut.
            dense: what `first` gave.
            worst: of the worst batch, instead of the mean over all.

        Returns:
            In the unit of the task's distance, nats per token for language models: a mean over
            tokens where the loss has a term per token, else over samples.

        Raises:
            NumericsError: an answer is not finite.
        """
        found, weights = [], []
        per_token = self._task.loss_rows == "token"
        with torch.no_grad(), frozen(model):
            for batch, expected in zip(self._batches, dense, strict=False):
                own = self._run(model, batch)
                found.append(float(self._task.distance(own, expected, batch)))
                weights.append(batch.num_tokens if per_token else len(batch))
        if not all(map(math.isfinite, found)):
            raise NumericsError(
                "the answers of a gated or cut model hold NaN or infinity; check the model's "
                "weights, or load it in float32 or bfloat16 instead of float16"
            )
        if worst:
            return max(found)
        return sum(w * each for w, each in zip(weights, found, strict=True)) / sum(weights)

    def _answer(self, number: int) -> Tensor:
        if number in self._kept:
            return self._kept[number]
        with torch.no_grad(), frozen(self._model):
            answer = self._run(self._model, self._batches[number])
        held = sum(each.numel() * each.element_size() for each in self._kept.values())
        if held + answer.numel() * answer.element_size() <= _KEPT_BYTES:
            self._kept[number] = answer
        return answer

    def _run(self, model: nn.Module, batch: Samples) -> Tensor:
        self.passes += 1
        return self._task.output(model, batch.to(next(model.parameters()).device))
