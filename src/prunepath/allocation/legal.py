"""Shapes the family's own config accepts, for layouts that must load everywhere.

Some configs refuse head counts (Llama wants the residual width to be a multiple of the number of
query heads). A uniform allocation therefore never stops between two legal shapes: a step that
would leave an illegal one waits for the next step that makes it legal again.
"""

from __future__ import annotations

from prunepath.allocation.steps import Step
from prunepath.structure.units import Structure

__all__ = ["merge_illegal_steps"]


def merge_illegal_steps(structure: Structure, steps: list[Step]) -> list[Step]:
    """Join steps so that every prefix has sizes the model's config accepts.

    Args:
        structure: carries the legal values of each config field.
        steps: steps of the `uniform` layout, where a step changes one factor in all layers.

    Returns:
        Steps in the same order of removal; illegal tails that never become legal are dropped.
    """
    sizes: dict[str, int] = {}
    for group in structure.groups:
        sizes.update(zip(group.unit.names, group.unit.sizes, strict=True))
    watched = {
        factor
        for field, factors in structure.config_sizes.items()
        if field in structure.legal_sizes
        for factor in factors
    }
    merged: list[Step] = []
    waiting: list[Step] = []
    for step in steps:
        group, units = step.removed[0]
        factor = next(name for name in group.unit.names if name != group.tied)
        sizes[factor] -= len(units) // group.num_lanes
        if factor not in watched:
            merged.append(step)
            continue
        waiting.append(step)
        if structure.accepts(sizes):
            removed = tuple(pair for item in waiting for pair in item.removed)
            merged.append(Step(removed, step.density))
            waiting = []
    return merged
