"""Samples: the one form in which every room behind `data` takes data, whatever the task.

A sample is one row of every model input: a window of text, an image, a sentence, a pair. Rows are
independent, so a pass over samples can be split, resumed and held out row by row.

Shapes: N samples, B samples of a batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from prunepath.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

__all__ = ["Samples", "fingerprint_of"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Samples:
    """Model inputs row by row, with what is needed to name and to recognise them.

    Args:
        inputs: keyword of the model's forward -> (N, ...), on the CPU. An `attention_mask` marks
            padding, which no statistic counts.
        labels: what the data says about each row, (N, ...); never passed to the model. None where
            the data says nothing.
        references: texts to compare with, one a row (transcripts, translations); may be empty.
        description: where they come from, in words.
        fingerprint: SHA-256 over names, shapes and values of the inputs, in hex.
        notes: what a reader wants the user to know (files that were skipped, and why).
    """

    inputs: Mapping[str, Tensor]
    labels: Tensor | None = None
    references: tuple[str, ...] = ()
    description: str = ""
    fingerprint: str = ""
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        sizes = {name: len(value) for name, value in self.inputs.items()}
        if len(set(sizes.values())) != 1:
            raise RequestError(f"samples need inputs with equally many rows, and have {sizes}")
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", fingerprint_of(self.inputs))

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def rows(self, start: int, stop: int) -> Self:
        """Samples start to stop - 1, with their own fingerprint.

        Raises:
            RequestError: the range is empty or reaches beyond the samples there are.
        """
        if not 0 <= start < stop <= len(self):
            raise RequestError(
                f"samples {start} to {stop} were asked for, but there are {len(self)}; give a "
                "range within them"
            )
        description = f"{self.description}, {start} to {stop - 1} of those"
        return self._slice(start, stop, description, fingerprint="")

    def chosen(self, indices: Sequence[int]) -> Self:
        """The samples of these indices, in that order."""
        name = f"{self.fingerprint}[{','.join(map(str, indices))}]"
        return replace(
            self,
            inputs={key: value[list(indices)] for key, value in self.inputs.items()},
            labels=None if self.labels is None else self.labels[list(indices)],
            references=tuple(self.references[i] for i in indices) if self.references else (),
            fingerprint=name,
        )

    def without(self, rows: Collection[int]) -> Self:
        """All samples but those at some indices, with their own fingerprint."""
        left = [row for row in range(len(self)) if row not in rows]
        description = f"{self.description}, without {len(self) - len(left)} of those"
        return replace(self.chosen(left), description=description, fingerprint="")

    def _slice(self, start: int, stop: int, description: str, fingerprint: str) -> Self:
        return replace(
            self,
            inputs={name: value[start:stop] for name, value in self.inputs.items()},
            labels=None if self.labels is None else self.labels[start:stop],
            references=self.references[start:stop],
            description=description,
            fingerprint=fingerprint,
        )

    def batches(self, size: int) -> Iterator[Self]:
        """The samples in batches; the last one may be smaller."""
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            # Named after the whole: hashing every batch again would cost more than some passes.
            name = f"{self.fingerprint}[{start}:{stop}]"
            yield self._slice(start, stop, self.description, name)

    def to(self, device: Any) -> dict[str, Tensor]:
        """The inputs on a device, to be passed to a model as keywords."""
        return {name: value.to(device) for name, value in self.inputs.items()}

    @property
    def num_tokens(self) -> int:
        """Positions that are no padding, where that is known; else the number of samples."""
        if "attention_mask" in self.inputs:
            return int(self.inputs["attention_mask"].sum())
        ids = self.inputs.get("input_ids")
        return len(self) if ids is None else ids.numel()


def fingerprint_of(inputs: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, types and bytes of tensors."""
    digest = hashlib.sha256()
    for name, value in sorted(inputs.items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()
