"""How many samples each part of a search takes, and which of the samples those are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunepath.errors import RequestError

if TYPE_CHECKING:
    from prunepath.data.samples import Samples
    from prunepath.structure.units import Structure
    from prunepath.tasks.task import Task

__all__ = ["Parts", "Plan", "require_counts"]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The samples of a search, part by part; None where a part has none.

    Args:
        calibration: for gradients.
        refit: the first of those, in whole batches: what the sequential refit aims at.
        holdout: the strength of a refit is chosen on them.
        moments: for second moments, forward only.
    """

    calibration: Samples
    refit: Samples | None
    holdout: Samples
    moments: Samples | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Counts of samples; see `tasks.task.Counts`."""

    windows: int
    refit: int
    holdout: int
    moments: int
    batch: int

    @classmethod
    def of(
        cls,
        task: Task,
        *,
        windows: int | None,
        refit: int | None,
        holdout: int | None,
        moments: int | None,
    ) -> Plan:
        """What was asked for, and the task's own counts where nothing was."""
        usual = task.counts
        asked = usual.windows if windows is None else windows
        wish = usual.refit if refit is None else refit
        whole = -(-wish // usual.batch) * usual.batch  # outputs are kept batch by batch
        return cls(
            windows=asked,
            refit=min(whole, asked),
            holdout=usual.holdout if holdout is None else holdout,
            moments=usual.moments if moments is None else moments,
            batch=usual.batch,
        )

    @property
    def refit_batches(self) -> int:
        """Batches whose consumer outputs are kept."""
        return -(-self.refit // self.batch)

    def parts(self, samples: Samples) -> Parts:
        """Cut samples into parts: calibration, held-out, and all that is left for moments."""
        count = self.windows + self.holdout
        return Parts(
            calibration=samples.rows(0, self.windows),
            refit=samples.rows(0, self.refit) if self.refit else None,
            holdout=samples.rows(self.windows, count),
            moments=samples.rows(count, len(samples)) if len(samples) > count else None,
        )

    def outputs_bytes(self, widths: dict[str, int], structure: Structure, samples: Samples) -> int:
        """Bytes of the outputs the search keeps.

        Args:
            widths: consumer -> its number of outputs.
            structure: the model's structure.
            samples: any of the samples, for their length.
        """
        ids = samples.inputs.get("input_ids")
        tokens = 1 if ids is None else int(ids.shape[-1])
        per_sample = 0.0
        for place in structure.places:
            for tensor in place.tensors:
                width = widths.get(tensor.name.removesuffix(".weight"), 0)
                rows = sum(factor * tokens**power for power, factor in enumerate(tensor.rows))
                per_sample += 2 * width * rows
        return round(self.refit * per_sample)


def require_counts(**given: tuple[int | None, int]) -> None:
    """Refuse counts that are too small.

    Args:
        given: name -> (what was asked for or None, the least there can be).

    Raises:
        RequestError: naming the first that is too small.
    """
    for name, (value, least) in given.items():
        if value is not None and value < least:
            raise RequestError(f"{name} is {value}; it must be at least {least}")
