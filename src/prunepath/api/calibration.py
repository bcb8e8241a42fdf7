"""What a search begins with: a model that was read, samples, and one pass of statistics over them.

The three are apart because a search takes one of each, and a comparison shares them: one model,
samples for every seed, and one pass for all methods of one objective.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.api.plan import Parts, Plan

if TYPE_CHECKING:
    from prunepath.checkpoint.source import OpenedModel
    from prunepath.data.samples import Samples
    from prunepath.methods.method import Method
    from prunepath.path import Provenance
    from prunepath.progress import Progress
    from prunepath.recipes import Recipe
    from prunepath.statistics.collect import Wanted
    from prunepath.statistics.sums import Statistics
    from prunepath.structure.units import Structure

__all__ = ["Calibration", "DenseModel", "collect_statistics", "read_calibration", "read_model"]


@dataclass(frozen=True, kw_only=True)
class DenseModel:
    """A model that was opened, recognised and read.

    Args:
        opened: the model with what belongs to it.
        weights: sha256 over all weights.
        structure: its units, proven.
    """

    opened: OpenedModel
    weights: str
    structure: Structure


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A model and the samples it is searched on.

    Args:
        dense: the model.
        samples: all samples that were read.
        plan: how many of them each part takes.
        parts: the parts.
        objective: `"kl"` or `"task"`.
        seed: seed of every random draw.
    """

    dense: DenseModel
    samples: Samples
    plan: Plan
    parts: Parts
    objective: str
    seed: int

    def provenance(self, recipe: Recipe, method: Method) -> Provenance:
        """What a path says about where it comes from.

        Args:
            recipe: by which it is searched.
            method: of the recipe, with its settings.
        """
        from prunepath import __version__
        from prunepath.path import Provenance

        return Provenance(
            method=recipe.method,
            method_config=method.config.to_dict(),
            model_id=self.dense.opened.model_id,
            model_fingerprint=self.dense.weights,
            data=self.samples.description,
            data_fingerprint=self.samples.fingerprint,
            objective=self.objective,
            seed=self.seed,
            library_version=__version__,
            tokens=self.parts.calibration.num_tokens,
            samples=self.plan.windows,
            task=self.dense.opened.task.name,
            recipe=recipe.to_dict(),
        )

    def estimate_bytes(self, wanted: Wanted) -> int:
        """Disk space a pass takes, for a check before it starts."""
        from prunepath.statistics.collect import estimate_bytes

        structure, model = self.dense.structure, self.dense.opened.model
        outputs = self.plan.outputs_bytes(_out_widths(model, structure), structure, self.samples)
        return 2 * estimate_bytes(structure, wanted) + outputs


def read_model(
    model: Any, *, task: str | None, progress: Progress | None = None, **how: Any
) -> DenseModel:
    """Open a model, recognise its weights and read its structure.

    Args:
        model: Hub id, folder, GGUF file, or a model object.
        task: registered task name; None: what the model's class is for.
        progress: who listens.
        how: see `checkpoint.source.open_model`.

    Raises:
        ModelError: not found, not readable, or nothing in it can be cut.
        NumericsError: a weight or an answer is not finite.
    """
    from prunepath.api.discovery import discover_for
    from prunepath.checkpoint.source import fingerprint, open_model

    opened = open_model(model, task=task, **how)
    weights = fingerprint(opened.model)
    structure = discover_for(opened.model, opened.task, progress=progress)
    return DenseModel(opened=opened, weights=weights, structure=structure)


def read_calibration(
    dense: DenseModel,
    data: Any,
    *,
    plan: Plan,
    objective: str,
    seed: int,
    window: int | None = None,
    text_field: str = "",
    label_field: str = "",
    split: str | None = None,
    admit: Callable[[Samples], Samples] | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Read the samples of a search and part them.

    Args:
        dense: the model.
        data, window, text_field, label_field, split: see `api.search.search`.
        plan: how many samples each part takes.
        objective: `"kl"` or `"task"`.
        seed: seed of every random draw.
        admit: says which samples may be used, or refuses them.
        progress: who listens.

    Raises:
        DataError: what was asked, what was found, what to do.
    """
    from prunepath.progress import note
    from prunepath.tasks.task import DataRequest

    request = DataRequest(
        count=plan.windows + plan.holdout,
        extra=plan.moments,
        window=window,
        field=text_field,
        label_field=label_field,
        split=split,
        seed=seed,
        labels=objective == "task",
    )
    samples = dense.opened.task.samples(dense.opened, data, request)
    for remark in samples.notes:
        note(progress, remark)
    samples = samples if admit is None else admit(samples)
    return Calibration(
        dense=dense,
        samples=samples,
        plan=plan,
        parts=plan.parts(samples),
        objective=objective,
        seed=seed,
    )


def collect_statistics(
    calibration: Calibration, wanted: Wanted, state: Path, *, progress: Progress | None = None
) -> Statistics:
    """Run the calibration pass and the forward passes for moments, or what is left of them.

    Args:
        calibration: model and samples.
        wanted: which sums to form; moments always are.
        state: folder that is resumed from; the consumers' outputs end there, too.
        progress: who listens.

    Returns:
        The sums over all samples.

    Raises:
        NumericsError: outputs or sums that are not finite.
    """
    from prunepath.statistics.collect import Wanted
    from prunepath.statistics.run import collect

    dense, parts = calibration.dense, calibration.parts
    sums = collect(
        dense.opened.model,
        dense.structure,
        dense.opened.task,
        parts.calibration,
        wanted,
        objective=calibration.objective,
        seed=calibration.seed,
        folder=state,
        output_batches=calibration.plan.refit_batches,
        progress=progress,
    )
    if parts.moments is None:
        return sums
    more = state / "moments"
    more.mkdir(exist_ok=True)
    return collect(
        dense.opened.model,
        dense.structure,
        dense.opened.task,
        parts.moments,
        Wanted(gradients=False, moments=True, output_gradients=False),
        objective=calibration.objective,
        seed=calibration.seed,
        folder=more,
        output_batches=0,
        onto=sums,
        progress=progress,
    )


def _out_widths(model: Any, structure: Structure) -> dict[str, int]:
    from prunepath.structure.matrices import out_width

    names = dict.fromkeys(group.consumer for group in structure.groups if group.consumer)
    return {name: out_width(model.get_submodule(name)) for name in names}
