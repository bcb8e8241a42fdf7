"""Whether the tokens of a model can merge for its task, where, and at what damage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prunepath.errors import PathFileError, RequestError

if TYPE_CHECKING:
    from prunepath.allocation.tokens import TokenOptions
    from prunepath.api.supplies import Supplies
    from prunepath.path import SolutionPath
    from prunepath.progress import Progress
    from prunepath.structure.tokens import TokenSite
    from prunepath.structure.units import Structure
    from prunepath.tasks.task import Task

__all__ = ["SCORED", "scores_beside", "token_options", "token_site"]

SCORED = "scored"
"""The schedule that measured damages make."""


def token_options(share: float, decay: float, schedule: Sequence[int] | str) -> TokenOptions:
    """What was asked of token merging, checked.

    Args:
        share, decay: see `TokenOptions`.
        schedule: tokens to merge in every block, or `"scored"`.

    Raises:
        RequestError: a word that is no schedule, or options that exclude each other.
    """
    from prunepath.allocation.tokens import TokenOptions

    if not isinstance(schedule, str):
        return TokenOptions(share=share, decay=decay, dropped=tuple(schedule))
    if schedule != SCORED:
        raise RequestError(
            f"unknown token schedule '{schedule}'; give the patches to merge in every block, or "
            f"'{SCORED}' beside a token share"
        )
    return TokenOptions(share=share, decay=decay, scored=True)


def scores_beside(
    model: Any,
    path: SolutionPath,
    task: Task,
    supplies: Supplies,
    site: TokenSite,
    *,
    progress: Progress | None = None,
) -> Any:
    """Damage of merging in every block, measured on the samples beside a path.

    Args:
        model: the dense model.
        path: whose seed draws what is compared.
        task: what the model is used for.
        supplies: what lies beside the path.
        site: where tokens merge.
        progress: who listens.

    Returns:
        (num_layers, tokens that one block can merge); see `token_damage`.

    Raises:
        PathFileError: the search kept no samples.
    """
    from prunepath.evaluation.token_damage import token_damage

    if supplies.refit is None:
        raise PathFileError(
            "this search kept no samples to measure merging on (refit_windows=0); search with "
            "some, or leave --token-schedule out"
        )
    return token_damage(
        model,
        path.structure,
        task,
        supplies.refit,
        site,
        seed=path.provenance.seed,
        progress=progress,
    )


def token_site(model: Any, task: Task, structure: Structure) -> TokenSite:
    """Where tokens merge; proven on the model before anything is changed.

    Args:
        model: the dense model.
        task: what it is for; makes the sample it is tried on.
        structure: its structure.

    Raises:
        RequestError: its tokens cannot merge, or its task needs every one of them.
        ModelError: its family table says something else than its layers do.
    """
    from prunepath.evaluation.mode import device_of, evaluating
    from prunepath.structure.families.portable import family_from_dict
    from prunepath.structure.merging import find_merging
    from prunepath.surgery.merging import read_site
    from prunepath.tasks import TASKS

    tables = [family_from_dict(table) for table in structure.tables]
    find_merging(model, tables)  # what the model is says more than what it is used for
    if not task.pools_patches:
        fitting = ", ".join(name for name in TASKS if TASKS[name].pools_patches)
        raise RequestError(
            f"token merging was asked for, and the task '{task.name}' answers for every patch of "
            f"the image, so none may merge; it is for {fitting}"
        )
    inputs = task.dummy(model, 1).to(device_of(model))
    with evaluating(model):
        return read_site(model, lambda: task.output(model, inputs), tables)
