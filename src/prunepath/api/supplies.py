"""What lies beside a path for the refit: statistics, calibration samples, outputs to aim at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunepath.errors import PathFileError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from prunepath.data.samples import Samples
    from prunepath.path import SolutionPath
    from prunepath.statistics.sums import Statistics
    from prunepath.tasks.task import Task

__all__ = ["CALIBRATION_FILE", "Supplies", "read_supplies", "save_calibration"]

CALIBRATION_FILE = "calibration.safetensors"

_REFIT, _HOLDOUT = "refit.", "holdout."


@dataclass(frozen=True)
class Supplies:
    """Read once, used for every size.

    Args:
        statistics: second moments of the dense model.
        outputs: consumer -> dense outputs on `refit`; empty unless the refit runs the cut model.
        refit: samples the cut model is run on; None where the search kept none.
        holdout: samples the refit's strength is chosen on.
    """

    statistics: Statistics
    outputs: dict[str, Tensor]
    refit: Samples | None
    holdout: Samples


def save_calibration(file: Path, refit: Samples | None, holdout: Samples) -> None:
    """Write the model inputs the refit needs, under prefixed names."""
    from safetensors.torch import save_file

    named = [(_HOLDOUT, holdout)] if refit is None else [(_REFIT, refit), (_HOLDOUT, holdout)]
    tensors = {
        prefix + name: value.contiguous().clone()
        for prefix, samples in named
        for name, value in samples.inputs.items()
    }
    save_file(tensors, file)


def read_supplies(path: SolutionPath, task: Task, *, sequential: bool) -> Supplies:
    """Read them.

    Args:
        path: a path with a folder.
        task: what it was searched for.
        sequential: whether the outputs to aim at are needed, too.

    Raises:
        PathFileError: something is missing, damaged or belongs to other weights.
    """
    from prunepath.statistics.run import load_outputs
    from prunepath.statistics.sums import STATISTICS_FILE, Statistics

    if path.folder is None:
        raise PathFileError(
            "this path was made in memory and has no statistics beside it; save it with search, "
            "or extract with --refit none"
        )
    statistics, header = Statistics.load(path.folder / STATISTICS_FILE)
    if header.get("model_fingerprint") != path.provenance.model_fingerprint:
        raise PathFileError(
            f"the statistics in {path.folder} belong to other weights than the path; search again, "
            "or extract with --refit none"
        )
    refit, holdout = _calibration(path.folder / CALIBRATION_FILE)
    if not sequential:
        return Supplies(statistics, {}, refit, holdout)
    if refit is None:
        raise PathFileError(
            "this search kept no samples to run a cut model on (refit_windows=0); extract with "
            "--refit moments"
        )
    batches = -(-len(refit) // task.counts.batch)
    return Supplies(statistics, load_outputs(path.folder, batches), refit, holdout)


def _calibration(file: Path) -> tuple[Samples | None, Samples]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from prunepath.data.samples import Samples

    try:
        tensors = load_file(file)
        inputs = {
            prefix: {
                name.removeprefix(prefix): value
                for name, value in tensors.items()
                if name.startswith(prefix)
            }
            for prefix in (_REFIT, _HOLDOUT)
        }
        if not inputs[_HOLDOUT]:
            raise ValueError("it holds no held-out samples")
    except (SafetensorError, OSError, ValueError) as error:
        raise PathFileError(
            f"{file} is missing or damaged ({error}); search again, or extract with --refit none"
        ) from None
    refit, holdout = (
        Samples(inputs=found, description=description) if found else None
        for found, description in (
            (inputs[_REFIT], "calibration samples of the refit"),
            (inputs[_HOLDOUT], "held-out calibration samples"),
        )
    )
    assert holdout is not None
    return refit, holdout
