"""What a selection does to a model, told without cutting it: a candidate costs a forward pass.

Gates at 0 equal physical removal, so the distance of the gated model's answers from the dense ones
is that of the cut model before any repair.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import nn

from prunepath.statistics.dense_answers import DenseAnswers
from prunepath.structure.gates import frozen, gated, gates_of
from prunepath.structure.selection import Selection
from prunepath.structure.units import Structure

if TYPE_CHECKING:
    from prunepath.data.samples import Samples
    from prunepath.tasks.task import Task

__all__ = ["GatedModel"]


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
        self._model, self._structure = model, structure
        self._answers = DenseAnswers(model, task, samples, batch=batch)

    @property
    def passes(self) -> int:
        """Forward passes so far."""
        return self._answers.passes

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
        dense = self._answers.first(samples)
        with self.showing(selection):
            return self._answers.distance(self._model, dense, worst=worst)
