"""The verb `search`: a model and some data in, a solution path out."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.api.plan import Plan, require_counts
from prunepath.errors import NumericsError

if TYPE_CHECKING:
    from prunepath.path import SolutionPath
    from prunepath.progress import Progress
    from prunepath.structure.units import Structure

__all__ = ["search"]


def search(
    model: Any,
    *,
    output: str | Path,
    data: Any = None,
    task: str | None = None,
    method: str = "spp",
    windows: int | None = None,
    window: int | None = None,
    objective: str | None = None,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    moment_windows: int | None = None,
    refit_windows: int | None = None,
    holdout_windows: int | None = None,
    text_field: str = "",
    label_field: str = "",
    split: str | None = None,
    tokenizer: Any = None,
    dtype: str = "auto",
    device: str | None = None,
    trust_remote_code: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    **hub: Any,
) -> SolutionPath:
    """Find the order in which a model's units matter; every size is later cut from it.

    A window is one sample: a window of text for language models, else an image, a sentence, a
    pair. Counts that are not given are the task's own.

    Args:
        model: Hub id, folder, GGUF file, or a model object.
        output: folder for the path and the statistics the refit needs.
        data: what the task reads: text or jsonl file, folder of images, table, `datasets` id,
            iterable; language models have a small public-domain text in the package by default.
        task: registered task name; by default what the model's class is for.
        method: registered method name.
        windows: calibration samples.
        window: tokens per sample of text.
        objective: `"kl"` (match the dense model) or `"task"` (the data's labels or next tokens);
            by default the method's own.
        seed: seed of every random draw; same seed, same path.
        config: settings of the method, by name.
        moment_windows: more samples, run forward only, for the second moments that order and
            refit rest on; as many of them as the data has.
        refit_windows: calibration samples kept for the sequential refit, in whole batches.
        holdout_windows: further samples on which the refit's strength is chosen; no statistics
            see them.
        text_field: field of a row that holds the text; empty: the task's usual names.
        label_field: field of a row that holds the label; empty: the task's usual names.
        split: split of a dataset.
        tokenizer: tokenizer object or source, where the model has none of its own.
        dtype, device, trust_remote_code, hub: how to load the model.
        overwrite: replace a folder that is not empty.
        progress: who listens.

    Returns:
        The path, also written to `output`.

    Raises:
        PrunepathError: one sentence on what was asked, what was found and what to do.

    Example:
        >>> import prunepath
        >>> path = prunepath.search("model", output="path")  # doctest: +SKIP
    """
    from prunepath.api.discovery import discover_for
    from prunepath.api.supplies import CALIBRATION_FILE, save_calibration
    from prunepath.checkpoint.source import fingerprint, open_model
    from prunepath.files import atomic_directory, refuse_used, require_space
    from prunepath.methods.method import METHODS, SearchContext, total_order
    from prunepath.methods.scope import scored_part
    from prunepath.path import Provenance, SolutionPath
    from prunepath.progress import note
    from prunepath.statistics.collect import Wanted, estimate_bytes
    from prunepath.statistics.objective import require_objective
    from prunepath.statistics.run import collect
    from prunepath.statistics.sums import STATISTICS_FILE
    from prunepath.structure.gates import frozen
    from prunepath.tasks.task import DataRequest

    chosen = METHODS[method]
    settings = chosen.Config.from_dict(dict(config or {}))
    scorer = chosen(settings)
    objective = objective or scorer.objective()
    require_objective(objective)
    require_counts(
        windows=(windows, 1),
        window=(window, 2),
        refit_windows=(refit_windows, 0),
        holdout_windows=(holdout_windows, 1),
        moment_windows=(moment_windows, 0),
    )
    target = Path(output)
    refuse_used(target, overwrite=overwrite)
    opened = open_model(
        model,
        task=task,
        tokenizer=tokenizer,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
        **hub,
    )
    plan = Plan.of(
        opened.task,
        windows=windows,
        refit=refit_windows,
        holdout=holdout_windows,
        moments=moment_windows,
    )
    weights = fingerprint(opened.model)
    structure = scored_part(discover_for(opened.model, opened.task, progress=progress), scorer)
    wanted = scorer.wanted()
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
    samples = opened.task.samples(opened, data, request)
    for remark in samples.notes:
        note(progress, remark)
    parts = plan.parts(samples)
    outputs_bytes = plan.outputs_bytes(_out_widths(opened.model, structure), structure, samples)
    require_space(target, 2 * estimate_bytes(structure, wanted) + outputs_bytes)
    provenance = Provenance(
        method=method,
        method_config=settings.to_dict(),
        model_id=opened.model_id,
        model_fingerprint=weights,
        data=samples.description,
        data_fingerprint=samples.fingerprint,
        objective=objective,
        seed=seed,
        library_version=_version(),
        tokens=parts.calibration.num_tokens,
        samples=plan.windows,
        task=opened.task.name,
    )
    state = _state_folder(target, {**asdict(provenance), **asdict(plan)})
    try:
        sums = collect(
            opened.model,
            structure,
            opened.task,
            parts.calibration,
            wanted,
            objective=objective,
            seed=seed,
            folder=state,
            output_batches=plan.refit_batches,
            progress=progress,
        )
        if parts.moments is not None:
            more = state / "moments"
            more.mkdir(exist_ok=True)
            sums = collect(
                opened.model,
                structure,
                opened.task,
                parts.moments,
                Wanted(gradients=False, moments=True, output_gradients=False),
                objective=objective,
                seed=seed,
                folder=more,
                output_batches=0,
                onto=sums,
                progress=progress,
            )
        note(progress, "ordering the units")
        with frozen(opened.model):
            ranking = scorer.rank(
                SearchContext(
                    model=opened.model,
                    structure=structure,
                    statistics=sums,
                    task=opened.task,
                    samples=parts.calibration,
                    objective=objective,
                    seed=seed,
                    state_folder=state,
                    progress=progress,
                )
            )
    except NumericsError:  # it would fail again: there is nothing to go on with
        shutil.rmtree(state)
        raise
    path = SolutionPath(
        structure=structure,
        **total_order(structure, ranking),
        provenance=replace(provenance, extra=dict(ranking.extra)),
        folder=target,
    )
    with atomic_directory(target, overwrite=overwrite) as folder:
        path.save_pretrained(folder)
        sums.only(lambda table: table in ("moments", "inputs")).save(
            folder / STATISTICS_FILE, model_fingerprint=weights
        )
        save_calibration(folder / CALIBRATION_FILE, refit=parts.refit, holdout=parts.holdout)
        for file in sorted(state.glob("outputs-*.safetensors")):
            # Linked, not moved: what an interruption leaves must be complete.
            try:
                (folder / file.name).hardlink_to(file)
            except OSError:  # a file system without links
                shutil.copyfile(file, folder / file.name)
    shutil.rmtree(state)
    return path


def _state_folder(target: Path, request: Mapping[str, Any]) -> Path:
    """Where an interrupted search goes on: a hidden sibling, only for the very same request."""
    state = target.absolute().parent / f".{target.name}.search"
    digest = hashlib.sha256(json.dumps(request, sort_keys=True, default=str).encode()).hexdigest()
    marker = state / "request.sha256"
    if state.exists() and (not marker.exists() or marker.read_text() != digest):
        shutil.rmtree(state)
    state.mkdir(parents=True, exist_ok=True)
    marker.write_text(digest)
    return state


def _out_widths(model: Any, structure: Structure) -> dict[str, int]:
    from prunepath.structure.matrices import out_width

    names = dict.fromkeys(group.consumer for group in structure.groups if group.consumer)
    return {name: out_width(model.get_submodule(name)) for name in names}


def _version() -> str:
    from prunepath import __version__

    return __version__
