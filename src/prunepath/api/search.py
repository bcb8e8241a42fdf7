"""The verb `search`: a model and some text in, a solution path out."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.errors import DataError, NumericsError, RequestError

if TYPE_CHECKING:
    from prunepath.path import SolutionPath
    from prunepath.progress import Progress

__all__ = ["search"]


def search(
    model: Any,
    *,
    output: str | Path,
    data: Any = None,
    method: str = "spp",
    windows: int = 32,
    window: int = 512,
    objective: str | None = None,
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    moment_windows: int = 48,
    refit_windows: int = 8,
    holdout_windows: int = 2,
    text_field: str = "text",
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

    Args:
        model: Hub id, folder, GGUF file, or a model object.
        output: folder for the path and the statistics the refit needs.
        data: text or jsonl file, `datasets` id, iterable of texts; by default a small
            public-domain text that ships with the package.
        method: registered method name.
        windows: calibration windows.
        window: tokens per window.
        objective: `"kl"` (match the dense model) or `"task"` (next tokens); by default the
            method's own.
        seed: seed of every random draw; same seed, same path.
        config: settings of the method, by name.
        moment_windows: more windows, run forward only, for the second moments that order and
            refit rest on; as many of them as the text has.
        refit_windows: calibration windows kept for the sequential refit.
        holdout_windows: windows after the calibration text on which the refit's strength is
            chosen; no statistics see them.
        text_field: field of a jsonl row or dataset row that holds the text.
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
    from prunepath.api.supplies import CALIBRATION_FILE, save_calibration
    from prunepath.checkpoint.source import fingerprint, open_model
    from prunepath.files import atomic_directory, refuse_used, require_space
    from prunepath.methods.method import METHODS, SearchContext, total_order
    from prunepath.path import Provenance, SolutionPath
    from prunepath.progress import note
    from prunepath.statistics.collect import Wanted, estimate_bytes
    from prunepath.statistics.objective import logit_gradient
    from prunepath.statistics.run import collect
    from prunepath.statistics.sums import STATISTICS_FILE
    from prunepath.structure.discover import discover
    from prunepath.structure.gates import frozen

    chosen = METHODS[method]
    settings = chosen.Config.from_dict(dict(config or {}))
    scorer = chosen(settings)
    objective = objective or scorer.objective()
    logit_gradient(objective)
    _check_counts(windows, window, refit_windows, holdout_windows, moment_windows)
    target = Path(output)
    refuse_used(target, overwrite=overwrite)
    opened = open_model(
        model,
        tokenizer=tokenizer,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
        **hub,
    )
    structure = discover(opened.model)
    wanted = scorer.wanted()
    outputs_bytes = _outputs_bytes(opened.model, structure, min(refit_windows, windows) * window)
    require_space(target, 2 * estimate_bytes(structure, wanted) + outputs_bytes)
    count = windows + holdout_windows
    text = _windows(opened, data, window, count, moment_windows, text_field, split)
    weights = fingerprint(opened.model)
    provenance = Provenance(
        method=method,
        method_config=settings.to_dict(),
        model_id=opened.model_id,
        model_fingerprint=weights,
        data=text.description,
        data_fingerprint=text.fingerprint,
        objective=objective,
        seed=seed,
        library_version=_version(),
        tokens=windows * window,
    )
    request = {
        **vars(provenance),
        "windows": windows,
        "refit_windows": refit_windows,
        "holdout_windows": holdout_windows,
    }
    state = _state_folder(target, request)
    try:
        sums = collect(
            opened.model,
            structure,
            text.ids[:windows],
            wanted,
            objective=objective,
            seed=seed,
            folder=state,
            output_windows=min(refit_windows, windows),
            progress=progress,
        )
        if text.num_windows > count:
            more = state / "moments"
            more.mkdir(exist_ok=True)
            sums = collect(
                opened.model,
                structure,
                text.ids[count:],
                Wanted(gradients=False, moments=True, output_gradients=False),
                objective=objective,
                seed=seed,
                folder=more,
                output_windows=0,
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
                    ids=text.ids[:windows],
                    objective=objective,
                    seed=seed,
                    state_folder=state,
                    progress=progress,
                )
            )
    except NumericsError:  # it would fail again: there is nothing to go on with
        shutil.rmtree(state)
        raise
    provenance = Provenance(**{**vars(provenance), "extra": dict(ranking.extra)})
    path = SolutionPath(
        structure=structure, **total_order(structure, ranking), provenance=provenance, folder=target
    )
    with atomic_directory(target, overwrite=overwrite) as folder:
        path.save_pretrained(folder)
        sums.only(lambda table: table in ("moments", "inputs")).save(
            folder / STATISTICS_FILE, model_fingerprint=weights
        )
        save_calibration(
            folder / CALIBRATION_FILE,
            refit=text.ids[: min(refit_windows, windows)],
            holdout=text.ids[windows:count],
        )
        for file in sorted(state.glob("outputs-*.safetensors")):
            # Linked, not moved: what an interruption leaves must be complete.
            try:
                (folder / file.name).hardlink_to(file)
            except OSError:  # a file system without links
                shutil.copyfile(file, folder / file.name)
    shutil.rmtree(state)
    return path


def _check_counts(
    windows: int, window: int, refit_windows: int, holdout_windows: int, moment_windows: int
) -> None:
    for name, value, least in (
        ("windows", windows, 1),
        ("window", window, 2),
        ("refit_windows", refit_windows, 0),
        ("holdout_windows", holdout_windows, 1),
        ("moment_windows", moment_windows, 0),
    ):
        if value < least:
            raise RequestError(f"{name} is {value}; it must be at least {least}")


def _windows(
    opened: Any,
    data: Any,
    window: int,
    count: int,
    extra: int,
    text_field: str,
    split: str | None,
) -> Any:
    from prunepath.data.windows import token_windows

    if opened.tokenizer is None:
        raise DataError(
            f"'{opened.model_id}' has no tokenizer beside it, and text was given; pass one with "
            "--tokenizer (tokenizer=...)"
        )
    return token_windows(
        data,
        opened.tokenizer,
        window=window,
        count=count,
        extra=extra,
        field=text_field,
        split=split,
    )


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


def _outputs_bytes(model: Any, structure: Any, tokens: int) -> int:
    names = {group.consumer for group in structure.groups if group.consumer}
    return sum(2 * tokens * int(model.get_submodule(name).weight.shape[0]) for name in names)


def _version() -> str:
    from prunepath import __version__

    return __version__
