"""Swap units of a selection under a quadratic model, measured where the gates stand, in rounds.

The first round measures the dense model, whose distance from itself has no slope: what removed
units do together decides, in all layers at once. Every further round closes the gates of what is
removed by then and measures again: curvature there, and the slope of the distance to the dense
model, of closed gates, too.

A model is only trusted as far as it is right: after each round the gated model's distance is
measured, and while it is not below what it was the later half of the swaps is taken back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prunepath.api.exchange import read_rows, samples_beside

if TYPE_CHECKING:
    from prunepath.allocation.allocate import Allocation
    from prunepath.allocation.quadratic import QuadraticModel
    from prunepath.allocation.swaps import SwapOptions
    from prunepath.api.supplies import Supplies
    from prunepath.data.samples import Samples
    from prunepath.path import SolutionPath
    from prunepath.progress import Progress
    from prunepath.statistics.gated_model import GatedModel
    from prunepath.structure.selection import Selection
    from prunepath.structure.units import UnitGroup
    from prunepath.tasks.task import Task

__all__ = ["ROUNDS", "Swapper"]

ROUNDS = 3


class Swapper:
    """Swaps units in allocations of one path; what is read of the dense model serves all sizes.

    Args:
        dense: the dense model.
        path: the path that is cut; its seed is that of the draws.
        task: what the model is used for.
        rounds: how often the model is measured; the first time without any gate closed.
        options: candidates and limits of a round.
        progress: who listens.
    """

    def __init__(
        self,
        dense: Any,
        path: SolutionPath,
        task: Task,
        *,
        rounds: int = ROUNDS,
        options: SwapOptions | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._dense, self._path, self._task = dense, path, task
        self._rounds, self._options, self._progress = rounds, options, progress
        self._rows: dict[str, Any] = {}
        self._gated: GatedModel | None = None

    def __call__(
        self, allocation: Allocation, supplies: Supplies
    ) -> tuple[Allocation, dict[str, float]]:
        """The allocation with other units of the same numbers, and what was swapped.

        Returns:
            The allocation; and `"swaps"`, the first round's model of the damage before and after
            its swaps, and the measured distance to the dense model before and after all of them.

        Raises:
            PathFileError: the search kept no samples.
            NumericsError: what was measured is not finite.
        """
        from prunepath.allocation.swaps import after_swaps, find_swaps
        from prunepath.progress import note
        from prunepath.structure.cost import cost_of

        samples = samples_beside(supplies)
        structure, selection = self._path.structure, allocation.selection
        start = now = self._distance(selection, samples)
        count, energies = 0, (0.0, 0.0)
        for turn in range(self._rounds):
            model = self._model(selection, samples, dense=turn == 0)
            swaps = find_swaps(structure, selection, model, self._path.rank, self._options)
            found = len(swaps)
            while swaps:
                after = self._distance(after_swaps(selection, swaps), samples)
                if after < now:
                    break
                swaps = swaps[: len(swaps) // 2]
            made = after_swaps(selection, swaps)
            if turn == 0:
                energies = (model.energy(selection), model.energy(made))
            now = after if swaps else now
            note(
                self._progress,
                f"round {turn + 1}: {len(swaps)} of {found} swaps, distance to the dense model "
                f"{now:.4g}",
            )
            selection, count = made, count + len(swaps)
            if turn and not swaps:
                break
        assert cost_of(structure, selection, allocation.options.sequence_length) == allocation.cost
        report = {
            "swaps": count,
            "damage before": float(f"{energies[0]:.5g}"),
            "damage after": float(f"{energies[1]:.5g}"),
            "distance before": float(f"{start:.5g}"),
            "distance after": float(f"{now:.5g}"),
        }
        return replace(allocation, selection=selection), report

    def _distance(self, selection: Selection, samples: Samples) -> float:
        from prunepath.statistics.gated_model import GatedModel

        if self._gated is None:
            self._gated = GatedModel(self._dense, self._path.structure, self._task, samples)
        return self._gated.distance(selection)

    def _model(self, selection: Selection, samples: Samples, *, dense: bool) -> QuadraticModel:
        """What the loss looks like around the dense model, or around the selection."""
        from prunepath.allocation.quadratic import Block, QuadraticModel
        from prunepath.statistics.gate_slopes import gate_slopes
        from prunepath.structure.gates import gates_of

        structure = self._path.structure
        groups = [group for group in structure.groups if not selection.of(group).all()]
        slopes: dict[str, Any] = {}
        closed: dict[str, Any] = {}
        if dense:
            missing = [group for group in groups if group.name not in self._rows]
            self._rows.update(self._read(missing, samples, None))
            rows = {group.name: self._rows[group.name] for group in groups}
        else:
            # The odds of a router have no finite slope where they are 0: its units stay.
            groups = [group for group in groups if group.gate.side != "logits"]
            if not groups:
                return QuadraticModel([])
            gates = gates_of(selection, structure)
            rows = self._read(groups, samples, gates)
            _, found = gate_slopes(
                self._dense,
                structure,
                self._task,
                samples,
                groups,
                gates,
                progress=self._progress,
            )
            slopes = {name: slope.numpy() for name, slope in found.items()}
            closed = {group.name: 1.0 - gates[group.name].double().numpy() for group in groups}
        blocks = []
        for names in self._together(groups, rows):
            parts = [
                {name: table[name] for name in names if name in table}
                for table in (rows, slopes, closed)
            ]
            blocks.append(Block(rows=parts[0], slopes=parts[1], closed=parts[2]))
        return QuadraticModel(blocks)

    def _read(
        self, groups: list[UnitGroup], samples: Samples, gates: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        return read_rows(
            self._dense,
            self._path,
            self._task,
            samples,
            groups,
            gates=gates,
            progress=self._progress,
        )

    def _together(self, groups: list[UnitGroup], rows: Mapping[str, Any]) -> list[list[str]]:
        """Groups whose rows are of the same samples; behind a router each is on its own."""
        found: dict[tuple[str, int], list[str]] = {}
        for group in groups:
            routed = self._path.structure.places_by_path[group.place].routed
            key = (group.name if routed else "", len(rows[group.name]))
            found.setdefault(key, []).append(group.name)
        return list(found.values())
