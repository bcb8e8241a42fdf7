"""Whether the tokens of a model can merge for its task, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunepath.errors import RequestError

if TYPE_CHECKING:
    from prunepath.structure.tokens import TokenSite
    from prunepath.structure.units import Structure
    from prunepath.tasks.task import Task

__all__ = ["token_site"]


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
