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
from prunepath.api.recipes import find_recipe, make_method
from prunepath.errors import NumericsError, RequestError

if TYPE_CHECKING:
    from prunepath.path import SolutionPath
    from prunepath.progress import Progress
    from prunepath.recipes import Recipe

__all__ = ["search"]


def search(
    model: Any,
    *,
    output: str | Path,
    data: Any = None,
    task: str | None = None,
    method: str | Path | Recipe | None = None,
    recipe: str | Path | Recipe | None = None,
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
        method: name of a recipe or of a method, by default `"spp"`; a recipe also says how its
            paper cuts and repairs, which `extract` follows unless told otherwise.
        recipe: a recipe of your own instead: its file (`.yaml`), or a `Recipe`.
        windows: calibration samples.
        window: tokens per sample of text.
        objective: `"kl"` (match the dense model) or `"task"` (the data's labels or next tokens);
            by default the method's own.
        seed: seed of every random draw; same seed, same path.
        config: settings of the method, by name; they win over those of a recipe.
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
    from prunepath.api.calibration import collect_statistics, read_calibration, read_model
    from prunepath.api.ranking import rank_units, write_path, write_supplies
    from prunepath.files import refuse_used, require_space
    from prunepath.methods.scope import scored_part
    from prunepath.statistics.objective import require_objective
    from prunepath.surgery.record import require_unmerged

    if method is not None and recipe is not None:
        raise RequestError(f"method '{method}' and recipe '{recipe}' were given; give one of them")
    chosen = find_recipe((method or "spp") if recipe is None else _as_file(recipe))
    scorer = make_method(chosen, config)
    objective = objective or scorer.objective()
    require_objective(objective)
    scorer.require_objective(objective)
    require_counts(
        windows=(windows, 1),
        window=(window, 2),
        refit_windows=(refit_windows, 0),
        holdout_windows=(holdout_windows, 1),
        moment_windows=(moment_windows, 0),
    )
    target = Path(output)
    refuse_used(target, overwrite=overwrite)
    dense = read_model(
        model,
        task=task,
        tokenizer=tokenizer,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
        progress=progress,
        **hub,
    )
    require_unmerged(dense.opened.model)
    dense = replace(dense, structure=scored_part(dense.structure, scorer))
    plan = Plan.of(
        dense.opened.task,
        windows=windows,
        refit=refit_windows,
        holdout=holdout_windows,
        moments=moment_windows,
    )
    calibration = read_calibration(
        dense,
        data,
        plan=plan,
        objective=objective,
        seed=seed,
        window=window,
        text_field=text_field,
        label_field=label_field,
        split=split,
        progress=progress,
    )
    wanted = scorer.wanted()
    require_space(target, calibration.estimate_bytes(wanted))
    provenance = calibration.provenance(chosen, scorer)
    state = _state_folder(target, {**asdict(provenance), **asdict(plan)})
    try:
        sums = collect_statistics(calibration, wanted, state, progress=progress)
        path = rank_units(calibration, sums, scorer, provenance, state, progress=progress)
    except NumericsError:  # it would fail again: there is nothing to go on with
        shutil.rmtree(state)
        raise
    write_path(path, write_supplies(calibration, sums, state), target, overwrite=overwrite)
    shutil.rmtree(state)
    return replace(path, folder=target)


def _as_file(recipe: str | Path | Recipe) -> Path | Recipe:
    return Path(recipe) if isinstance(recipe, str) else recipe


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
