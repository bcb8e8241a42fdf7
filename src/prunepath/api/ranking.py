"""From statistics to a path: a method ranks the units, and the path is written with its supplies.

Any number of methods can rank from one pass; what lies beside a path for the refit is the same for
all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunepath.api.calibration import Calibration
    from prunepath.methods.method import Method
    from prunepath.path import Provenance, SolutionPath
    from prunepath.progress import Progress
    from prunepath.statistics.sums import Statistics

__all__ = ["rank_units", "write_path", "write_supplies"]


def rank_units(
    calibration: Calibration,
    sums: Statistics,
    method: Method,
    provenance: Provenance,
    state: Path,
    *,
    progress: Progress | None = None,
) -> SolutionPath:
    """Order all units by a method.

    Args:
        calibration: model and samples.
        sums: what the pass over them measured.
        method: with its settings.
        provenance: of the path; what the method wants to keep is added.
        state: folder where a long method may keep its state.
        progress: who listens.

    Returns:
        The path, in memory.

    Raises:
        NumericsError: a score is not finite.
        RequestError: the method scores nothing in this model.
    """
    from prunepath.methods.method import SearchContext, total_order
    from prunepath.methods.scope import scored_part
    from prunepath.path import SolutionPath
    from prunepath.progress import note
    from prunepath.structure.gates import frozen

    dense = calibration.dense
    structure = scored_part(dense.structure, method)
    note(progress, "ordering the units")
    with frozen(dense.opened.model):
        ranking = method.rank(
            SearchContext(
                model=dense.opened.model,
                structure=structure,
                statistics=sums,
                task=dense.opened.task,
                samples=calibration.parts.calibration,
                objective=calibration.objective,
                seed=calibration.seed,
                state_folder=state,
                progress=progress,
            )
        )
    return SolutionPath(
        structure=structure,
        **total_order(structure, ranking),
        provenance=replace(provenance, extra=dict(ranking.extra)),
        companions=ranking.companions,
    )


def write_supplies(calibration: Calibration, sums: Statistics, state: Path) -> Path:
    """Write what the refit needs, once, to be linked beside any number of paths.

    Args:
        calibration: model and samples.
        sums: what the pass over them measured.
        state: folder of the pass, with the consumers' outputs.

    Returns:
        The folder of supplies, inside `state`.

    Raises:
        DiskError: it cannot be written.
    """
    from prunepath.api.supplies import CALIBRATION_FILE, save_calibration
    from prunepath.files import atomic_directory
    from prunepath.statistics.sums import STATISTICS_FILE

    target = state / "supplies"
    with atomic_directory(target, overwrite=True) as folder:
        sums.only(lambda table: table in ("moments", "inputs")).save(
            folder / STATISTICS_FILE, model_fingerprint=calibration.dense.weights
        )
        parts = calibration.parts
        save_calibration(folder / CALIBRATION_FILE, refit=parts.refit, holdout=parts.holdout)
        _link_all(state.glob("outputs-*.safetensors"), folder)
    return target


def write_path(
    path: SolutionPath, supplies: Path | None, target: Path, *, overwrite: bool = False
) -> None:
    """Write a path and, beside it, what the refit needs: all of it or nothing.

    Args:
        path: what was found.
        supplies: folder of what the refit needs; None writes the path alone.
        target: folder to write.
        overwrite: replace a folder that is not empty.

    Raises:
        DiskError: it cannot be written.
    """
    from prunepath.files import atomic_directory

    with atomic_directory(target, overwrite=overwrite) as folder:
        path.save_pretrained(folder)
        if supplies is not None:
            _link_all(supplies.iterdir(), folder)


def _link_all(files: Iterable[Path], folder: Path) -> None:
    from prunepath.files import link_or_copy

    for file in sorted(files):
        link_or_copy(file, folder / file.name)  # not moved: an interruption leaves all of it
