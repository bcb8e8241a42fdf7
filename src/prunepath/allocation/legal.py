"""Shapes the family's own config accepts, for layouts that must load everywhere.

Some configs refuse head counts (Llama wants the residual width to be a multiple of the number of
query heads). A uniform allocation therefore never stops between two legal shapes: a step that
would leave an illegal one waits for the next step that makes it legal again.
"""

from __future__ import annotations

from prunepath.allocation.steps import Step
from prunepath.structure.selection import untied
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
    watched: dict[str, set[str]] = {}  # path of a config -> factors it is choosy about
    sizes: dict[str, dict[str, int]] = {}  # path of a config -> factor -> size
    for stack in structure.stacks:
        factors = watched.setdefault(stack.config, set())
        for field, names in stack.config_sizes.items():
            if field in stack.legal_sizes:
                factors.update(names)
    for group in structure.groups:
        known = sizes.setdefault(structure.stack_of(group).config, {})
        known.update(zip(group.unit.names, group.unit.sizes, strict=True))
    merged: list[Step] = []
    waiting: dict[str, list[Step]] = {}
    for step in steps:
        group, units = step.removed[0]
        config = structure.stack_of(group).config
        (factor,) = untied(group)[-1:]
        sizes[config][factor] -= len(units) // group.num_lanes
        if factor not in watched[config]:
            merged.append(step)
            continue
        held = waiting.setdefault(config, [])
        held.append(step)
        if all(s.accepts(sizes[config]) for s in structure.stacks if s.config == config):
            removed = tuple(pair for item in held for pair in item.removed)
            merged.append(Step(removed, step.density))
            waiting[config] = []
    return merged
