"""Discover a model's structure with its task at hand, so that every cost is a measured one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunepath.structure.units import Structure
    from prunepath.tasks.task import Task

__all__ = ["discover_for"]


def discover_for(model: Any, task: Task) -> Structure:
    """Read a model's structure; a few short passes over random samples count its work.

    Args:
        model: the dense model.
        task: makes the samples and runs the model on them.

    Returns:
        Its structure.

    Raises:
        ModelError: no family covers it, or nothing in it can be cut.
    """
    from prunepath.evaluation.mode import device_of, evaluating
    from prunepath.structure.discover import discover

    def probe(length: int) -> None:
        samples = task.dummy(model, 1, window=length)
        task.output(model, samples.to(device_of(model)))

    with evaluating(model):
        return discover(model, probe)
