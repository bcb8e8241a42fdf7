"""Exchange units of a selection by what they do together, measured on the samples beside a path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prunepath.errors import PathFileError

if TYPE_CHECKING:
    from torch import Tensor

    from prunepath.allocation.allocate import Allocation
    from prunepath.api.supplies import Supplies
    from prunepath.data.samples import Samples
    from prunepath.path import SolutionPath
    from prunepath.progress import Progress
    from prunepath.structure.units import UnitGroup
    from prunepath.tasks.task import Task

__all__ = ["Rearranger", "read_rows", "samples_beside"]


def samples_beside(supplies: Supplies) -> Samples:
    """The samples that gates are read on.

    Raises:
        PathFileError: the search kept none.
    """
    if supplies.refit is None:
        raise PathFileError(
            "this search kept no samples to read gate gradients on (refit_windows=0); search "
            "with some, or extract without --rearrange"
        )
    return supplies.refit


def read_rows(
    dense: Any,
    path: SolutionPath,
    task: Task,
    samples: Samples,
    groups: Sequence[UnitGroup],
    *,
    gates: Mapping[str, Tensor] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Gate gradients of groups by name, (rows, units) each; the path's seed is that of the draws.

    Args:
        dense: the dense model.
        path: the path that is cut.
        task: what the model is used for.
        samples: what it is run on.
        groups: whose gates are read; none reads nothing.
        gates: group -> gates that the model runs with; None: all open.
        progress: who listens.
    """
    from prunepath.statistics.gate_rows import gate_rows

    if not groups:
        return {}
    rows = gate_rows(
        dense,
        path.structure,
        task,
        samples,
        groups,
        seed=path.provenance.seed,
        gates=gates,
        progress=progress,
    )
    return {name: value.numpy() for name, value in rows.items()}


class Rearranger:
    """Rearranges allocations of one path; gate gradients are read once for all sizes.

    Args:
        dense: the dense model.
        path: the path that is cut; its seed is that of the draws.
        task: what the model is used for.
        progress: who listens.
    """

    def __init__(
        self, dense: Any, path: SolutionPath, task: Task, *, progress: Progress | None = None
    ) -> None:
        self._dense = dense
        self._path = path
        self._task = task
        self._progress = progress
        self._rows: dict[str, Any] = {}

    def __call__(
        self, allocation: Allocation, supplies: Supplies
    ) -> tuple[Allocation, dict[str, float]]:
        """The allocation with other units of the same numbers, and what was exchanged.

        Raises:
            PathFileError: the search kept no samples.
        """
        from prunepath.allocation.rearrange import rearrange
        from prunepath.structure.cost import cost_of

        structure, selection = self._path.structure, allocation.selection
        self._read(allocation, supplies)
        done = rearrange(structure, selection, self._rows)
        length = allocation.options.sequence_length
        assert cost_of(structure, done.selection, length) == allocation.cost
        found = {
            "swaps": done.swaps,
            "damage before": float(f"{done.before:.5g}"),
            "damage after": float(f"{done.after:.5g}"),
        }
        return replace(allocation, selection=done.selection), found

    def _read(self, allocation: Allocation, supplies: Supplies) -> None:
        """Gate gradients of all groups that lost some units but not all, where not read yet."""
        samples = samples_beside(supplies)
        missing = [
            group
            for group in self._path.structure.groups
            if group.name not in self._rows
            and allocation.selection.of(group).any()
            and not allocation.selection.of(group).all()
        ]
        self._rows |= read_rows(
            self._dense, self._path, self._task, samples, missing, progress=self._progress
        )
