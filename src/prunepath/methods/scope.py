"""What of a model a method can score; the rest is left alone, and named."""

from __future__ import annotations

from dataclasses import replace

from prunepath.errors import RequestError
from prunepath.methods.method import Method
from prunepath.structure.units import LeftAlone, Structure

__all__ = ["scored_part"]


def scored_part(structure: Structure, method: Method) -> Structure:
    """The structure without groups a method cannot score; they join `left_alone`.

    Args:
        structure: the model's structure.
        method: the method that will rank its units.

    Returns:
        The same structure where the method scores everything.

    Raises:
        RequestError: it scores nothing in this model.
    """
    groups = method.scored_groups(structure)
    if len(groups) == len(structure.groups):
        return structure
    if not groups:
        raise RequestError(
            f"the method '{method.name}' scores {method.scope}, and this model has units of the "
            f"kinds {', '.join(structure.kinds)} alone; use another method"
        )
    reason = f"the method '{method.name}' scores {method.scope}"
    kept = {group.name for group in groups}
    dropped = (group for group in structure.groups if group.name not in kept)
    left = [
        LeftAlone(module=f"{group.place}#{group.kind}", params=0, reason=reason)
        for group in dropped
    ]
    return replace(structure, groups=groups, left_alone=(*structure.left_alone, *left))
