"""Choose sizes of all sub-layers by running the model on the samples beside a path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunepath.errors import NumericsError, PathFileError

if TYPE_CHECKING:
    from prunepath.allocation.allocate import Choice
    from prunepath.allocation.ladders import Counts, Ladders
    from prunepath.allocation.rules import CurvesSettings, EvolutionSettings, SharesSettings
    from prunepath.allocation.steps import StepOptions
    from prunepath.api.supplies import Supplies
    from prunepath.path import SolutionPath
    from prunepath.progress import Progress
    from prunepath.statistics.gated_model import GatedModel
    from prunepath.tasks.task import Task

__all__ = ["Chooser"]


class Chooser:
    """The measuring rules for one path; what does not depend on the budget is measured once.

    Args:
        dense: the dense model.
        path: the path that is cut; its seed is that of all draws.
        task: what the model is used for.
        supplies: what lies beside the path.
        options: the rule, its settings, and how steps are made; the same for all budgets.
        progress: who listens.

    Raises:
        PathFileError: the search kept no samples.
    """

    def __init__(
        self,
        dense: Any,
        path: SolutionPath,
        task: Task,
        supplies: Supplies,
        options: StepOptions,
        *,
        progress: Progress | None = None,
    ) -> None:
        from prunepath.allocation.rules import rule_settings

        if supplies.refit is None:
            raise PathFileError(
                "this search kept no samples to measure selections on (refit_windows=0); search "
                "with some, or extract with --rule order"
            )
        self._dense, self._path, self._task = dense, path, task
        self._samples, self._progress = supplies.refit, progress
        self._rule = options.rule
        self._settings: Any = rule_settings(options.rule, options.rule_set)
        self._model: GatedModel | None = None
        self._alone: dict[tuple[str, str, int], float] = {}  # metric, ladder, steps made
        self._noise: dict[str, float] = {}

    def __call__(self, ladders: Ladders, start: Counts, required: float) -> Choice:
        """Steps of every ladder that save what is required.

        Args:
            ladders: all of them.
            start: what the order takes; saves at least what is required.
            required: what must be saved.

        Raises:
            NumericsError: nothing that is cut moves the answers, or they are not finite.
        """
        from prunepath.allocation.allocate import Choice

        self._passes = 0  # of what is not the gated model's own
        rules = {"curves": self._curves, "evolution": self._evolution, "shares": self._shares}
        model = self._gated()
        before = model.passes
        counts, found = rules[self._rule](ladders, start, required)
        samples = found.pop("samples")
        figures = {
            "distance by the order": model.distance(ladders.selection(start), int(samples)),
            "distance": model.distance(ladders.selection(counts), int(samples)),
            "sub-layers changed": sum(a != b for a, b in zip(counts, start, strict=True)),
            **found,
        }
        figures["forward passes"] = self._passes + model.passes - before
        return Choice(
            counts=counts,
            figures={
                name: value if isinstance(value, int) else float(f"{value:.5g}")
                for name, value in figures.items()
            },
        )

    def _curves(
        self, ladders: Ladders, start: Counts, required: float
    ) -> tuple[Counts, dict[str, float]]:
        """The least sum of distances; that of the order's counts where rounding left no other."""
        from prunepath.allocation.curves import cheapest_counts, read_curves, summed
        from prunepath.progress import track

        settings: CurvesSettings = self._settings
        model = self._gated()
        metric = ladders.metric
        total = len(ladders) * (settings.levels - 1)
        bar = iter(track(self._progress, range(total), "cutting sub-layers alone", total))

        def distance(index: int, count: int) -> float:
            next(bar, None)
            key = (metric, ladders[index].name, count)
            if key not in self._alone:
                selection = ladders.alone(index, count)
                self._alone[key] = model.distance(selection, settings.samples, worst=settings.worst)
            return self._alone[key]

        curves = read_curves(ladders, settings.levels, distance)
        for _ in bar:  # levels that fell together
            pass
        if not any(curve.distance[-1] > 0 for curve in curves):
            raise NumericsError(
                "no sub-layer moves the answers when it is cut alone, so there are no curves to "
                "choose by; give more --windows to the search, or extract with --rule order"
            )
        found = cheapest_counts(ladders, curves, required)
        counts = min(
            [start] if found is None else [found, start], key=lambda each: summed(curves, each)
        )
        return counts, {
            "samples": settings.samples,
            "sum of curves by the order": summed(curves, start),
            "sum of curves": summed(curves, counts),
        }

    def _evolution(
        self, ladders: Ladders, start: Counts, required: float
    ) -> tuple[Counts, dict[str, float]]:
        from prunepath.allocation.evolution import evolve

        settings: EvolutionSettings = self._settings
        model = self._gated()
        found = evolve(
            ladders,
            start,
            required,
            lambda counts, samples: model.distance(ladders.selection(counts), samples),
            settings,
            seed=self._path.provenance.seed,
            progress=self._progress,
        )
        last = settings.rounds[-1].samples
        return found.counts, {"samples": last, "candidates": found.candidates}

    def _shares(
        self, ladders: Ladders, start: Counts, required: float
    ) -> tuple[Counts, dict[str, float]]:
        from prunepath.allocation.shares import share_counts
        from prunepath.statistics.noise import linears_of, noise_scores

        settings: SharesSettings = self._settings
        linears = [
            [name for place in ladders[index].places for name in linears_of(self._dense, place)]
            for index in range(len(ladders))
        ]
        missing = [name for names in linears for name in names if name not in self._noise]
        if missing:
            count = min(settings.samples, len(self._samples)) or len(self._samples)
            batches = -(-count // self._task.counts.batch)
            self._passes = batches * (1 + 2 * len(missing))
            self._noise |= noise_scores(
                self._dense,
                self._task,
                self._samples.rows(0, count),
                missing,
                epsilon=settings.epsilon,
                objective=settings.loss,
                seed=self._path.provenance.seed,
                progress=self._progress,
            )
        scores = [sum(self._noise[name] for name in names) for names in linears]
        counts = share_counts(ladders, scores, required, spread=settings.spread)
        return counts, {"samples": settings.samples}

    def _gated(self) -> GatedModel:
        from prunepath.statistics.gated_model import GatedModel

        if self._model is None:
            alone = getattr(self._settings, "worst", False)
            self._model = GatedModel(
                self._dense,
                self._path.structure,
                self._task,
                self._samples,
                batch=1 if alone else None,
            )
        return self._model
