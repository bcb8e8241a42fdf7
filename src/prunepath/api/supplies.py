"""What lies beside a path for the refit: statistics, calibration ids, outputs to aim at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunepath.errors import PathFileError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from prunepath.data.windows import TokenWindows
    from prunepath.path import SolutionPath
    from prunepath.statistics.sums import Statistics

__all__ = ["CALIBRATION_FILE", "Supplies", "read_supplies", "save_calibration"]

CALIBRATION_FILE = "calibration.safetensors"


@dataclass(frozen=True)
class Supplies:
    """Read once, used for every size.

    Args:
        statistics: second moments of the dense model.
        outputs: consumer -> dense outputs on `ids`; empty unless the refit is sequential.
        ids: windows of the sequential refit (B, T).
        holdout: windows the refit's strength is chosen on.
    """

    statistics: Statistics
    outputs: dict[str, Tensor]
    ids: Tensor
    holdout: TokenWindows


def save_calibration(file: Path, refit: Tensor, holdout: Tensor) -> None:
    """Write the token ids the refit needs."""
    from safetensors.torch import save_file

    save_file({"refit": refit.contiguous().clone(), "holdout": holdout.contiguous().clone()}, file)


def read_supplies(path: SolutionPath, *, sequential: bool) -> Supplies:
    """Read them.

    Args:
        path: a path with a folder.
        sequential: whether the outputs to aim at are needed, too.

    Raises:
        PathFileError: something is missing, damaged or belongs to other weights.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from prunepath.data.windows import TokenWindows
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
    try:
        ids = load_file(path.folder / CALIBRATION_FILE)
    except (SafetensorError, OSError) as error:
        raise PathFileError(
            f"{path.folder / CALIBRATION_FILE} is missing or damaged ({error}); search again, or "
            "extract with --refit none"
        ) from None
    if sequential and not len(ids["refit"]):
        raise PathFileError(
            "this search kept no windows for the sequential refit (refit_windows=0); extract with "
            "--refit moments"
        )
    outputs = load_outputs(path.folder, len(ids["refit"])) if sequential else {}
    holdout = ids["holdout"]
    windows = TokenWindows(holdout, "held-out calibration text", "", holdout.numel())
    return Supplies(statistics, outputs, ids["refit"], windows)
