"""The verb `rescore`: a path and other weights in, a path in the new order out; no model needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.errors import PathFileError, RequestError

if TYPE_CHECKING:
    from prunepath.methods.method import Method, Ranking
    from prunepath.path import Provenance, SolutionPath

__all__ = ["rescore"]


def rescore(
    path: str | Path | SolutionPath,
    *,
    output: str | Path,
    config: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> SolutionPath:
    """Order a model's units anew from the scores that a search stored beside its path.

    The result is what a search with these settings would have found, in seconds; only which units
    a hybrid search measured beside its estimates stays as it was. Methods whose damage is a score
    of each unit (`fisher`, `taylor`, `magnitude`, `gblm`) keep it in the path, so `standardise`
    can be chosen afterwards. Everything an extraction needs comes along, linked where the disk can
    do that.

    Args:
        path: a solution path or its folder, from a method that keeps its scores.
        output: folder for the new path.
        config: settings of the method that act after scoring, by name; the others stay as they
            were.
        overwrite: replace a folder that is not empty.

    Returns:
        The path, also written to `output`; its provenance names the settings before.

    Raises:
        PrunepathError: one sentence on what was asked, what was found and what to do.

    Example:
        >>> import prunepath
        >>> prunepath.rescore("path", output="mean", config={"md_norm": "mean"})  # doctest: +SKIP
    """
    from prunepath.files import atomic_directory, link_or_copy, refuse_used
    from prunepath.methods.method import METHODS, total_order
    from prunepath.methods.standardise import AFTER_SCORING, standardised
    from prunepath.path import PATH_FILE, SolutionPath

    old = path if isinstance(path, SolutionPath) else SolutionPath.from_pretrained(path)
    method = METHODS[old.provenance.method]
    settings = _settings(method, old.provenance, dict(config or {}))
    if old.folder is None:
        raise PathFileError(
            "this path was made in memory and has no scores beside it; save it with search"
        )
    target = Path(output)
    refuse_used(target, overwrite=overwrite)
    scorer = method(method.Config.from_dict(settings))
    if method.after_scoring == AFTER_SCORING:
        ranking = standardised(_plain(old), settings["standardise"])
    else:
        ranking = scorer.rerank(old.structure, old.folder, old.provenance.extra)
    before = old.provenance.extra.get("rescored_from", old.provenance.method_config)
    made = SolutionPath(
        structure=old.structure,
        **total_order(old.structure, ranking),
        provenance=replace(
            old.provenance,
            method_config=settings,
            extra={**ranking.extra, "rescored_from": dict(before)},
        ),
        folder=target,
    )
    with atomic_directory(target, overwrite=overwrite) as folder:
        made.save_pretrained(folder)
        for file in sorted(old.folder.glob("*.safetensors")):
            if file.name != PATH_FILE:
                link_or_copy(file, folder / file.name)
    return made


def _plain(path: SolutionPath) -> Ranking:
    """The scores of a path as its method found them."""
    from prunepath.methods.method import Ranking

    was = path.provenance.method_config.get("standardise", "none")
    if was != "none":
        raise RequestError(
            f"this path was standardised by '{was}', and what its scores were before is not in "
            "it; start from the path it was made of, or search again"
        )
    return Ranking(damage=path.damage, extra=path.provenance.extra)


def _settings(
    method: type[Method], provenance: Provenance, changes: Mapping[str, Any]
) -> dict[str, Any]:
    """All settings, some of them changed."""
    own = method.after_scoring
    known = method.Config.from_dict(provenance.method_config).to_dict()
    for name, value in changes.items():
        if own and name in known and name not in own and value != known[name]:
            raise RequestError(
                f"{name}={value} was asked for, and the scores were measured with {name}="
                f"{known[name]}; search again with that, or change one of {', '.join(own)}"
            )
    if own:
        method.Config.from_dict({**known, **changes})  # refuses what it does not know
    return {**known, **changes}
