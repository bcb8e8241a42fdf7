"""Units that are whole modules: which modules leave with them, and how many units must stay.

An expert is such a unit: it leaves with its row of the router and with everything inside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from prunepath.structure.families import Kind
from prunepath.structure.sizes import evaluate
from prunepath.structure.units import UnitGroup

__all__ = ["with_members"]


def with_members(
    group: UnitGroup,
    kind: Kind,
    model: nn.Module,
    path: str,
    config: Any,
    sizes: Mapping[str, int],
) -> tuple[UnitGroup, str]:
    """A group with its members and the fewest units that must stay.

    Args:
        group: the group as its axis says.
        kind: the kind in its table.
        model: the model.
        path: full path of the place.
        config: the config its sizes are stated in.
        sizes: factor -> size.

    Returns:
        The group, and why none of its units can leave, or an empty string.

    Raises:
        ModelError: the table asks for a size that this model does not state.
    """
    least = evaluate(kind.least, model.get_submodule(path), config, sizes) if kind.least else 0
    members = (
        _matches(dict(model.named_modules()), f"{path}.{kind.members}") if kind.members else ()
    )
    if kind.members and len(members) != group.num_units:
        return group, (
            f"its {group.num_units} units leave with one module each, and "
            f"'{path}.{kind.members}' is {len(members)}"
        )
    if least >= group.num_units:
        return group, (
            f"the model's code runs with {least} units of the kind '{kind.name}' or more, and has "
            "no others"
        )
    return replace(group, members=members, least=least), ""


def _matches(modules: Mapping[str, nn.Module], pattern: str) -> tuple[str, ...]:
    """Full paths of the modules that a pattern with one `*` stands for."""
    before, _, after = pattern.partition("*")
    parent = modules.get(before.removesuffix("."))
    names = [name for name, _ in parent.named_children()] if parent is not None else []
    return tuple(f"{before}{name}{after}" for name in names if f"{before}{name}{after}" in modules)
