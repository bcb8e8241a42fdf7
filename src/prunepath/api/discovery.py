"""A model's structure as every verb reads it: with its task at hand, counted without padding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunepath.progress import Progress
    from prunepath.structure.units import Structure
    from prunepath.tasks.task import Task

__all__ = ["discover_for"]


def discover_for(
    model: Any, task: Task, *, proven: bool = True, progress: Progress | None = None
) -> Structure:
    """Read a model's structure; short passes over random samples count its work.

    Args:
        model: a dense model, or one that was cut.
        task: makes the samples and runs the model on them.
        proven: compare gate and cut for every group; costs alone need no proof.
        progress: who listens.

    Returns:
        Its structure.

    Raises:
        ModelError: no family covers it, or nothing in it can be cut.
        NumericsError: it answers NaN, so nothing can be proven on it.
    """
    from prunepath.api.structure import read_structure

    if proven:
        _require_answers(model, task)
    with _unpadded(model):
        return read_structure(model, task, proven=proven, progress=progress)


def _require_answers(model: Any, task: Task) -> None:
    import torch

    from prunepath.errors import NumericsError
    from prunepath.evaluation.mode import device_of, evaluating

    with evaluating(model):
        answer = task.output(model, task.dummy(model, 1).to(device_of(model)))
    if torch.isnan(answer).any():
        raise NumericsError(
            "the model answers NaN to a random sample; check its weights, or load it in float32 "
            "or bfloat16 instead of float16"
        )


@contextmanager
def _unpadded(model: Any) -> Iterator[None]:
    """Our compact attention pads keys or values for fused kernels; that is no work to count."""
    if not getattr(model.config, "prunepath", None):
        yield
        return
    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(usual)
