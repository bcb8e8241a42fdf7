"""Biases for linear maps that have none, so that a repair can move them; written down to be loaded.

A config of transformers says of all layers at once whether they have biases, and of some maps it
cannot say it at all. A cut model that was given biases therefore carries a record of ours, whatever
its sizes are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from prunepath.structure.matrices import new_bias_, out_width
from prunepath.structure.selection import Selection
from prunepath.structure.units import Structure
from prunepath.surgery.cut import record_sizes_

__all__ = ["give_biases_"]


def give_biases_(
    model: nn.Module, structure: Structure, selection: Selection, names: Iterable[str]
) -> int:
    """Give linear maps of a cut model biases of zero where they have none.

    Args:
        model: the cut model; its config takes the record.
        structure: the dense model's structure.
        selection: units kept.
        names: full paths of linear maps inside places.

    Returns:
        Numbers that were added.
    """
    bare = {name for name in names if getattr(model.get_submodule(name), "bias", None) is None}
    added: dict[str, list[str]] = {}
    for place in structure.places:
        for tensor in place.tensors:
            name = tensor.name.removesuffix(".weight")
            if name in bare:
                bare.remove(name)
                added.setdefault(place.path, []).append(name.removeprefix(f"{place.module}."))
                new_bias_(model.get_submodule(name))
    assert not bare, f"no place holds {sorted(bare)}"
    if not added:
        return 0
    places = [place for place in structure.places if place.path in added]
    record_sizes_(model, structure, places, selection)
    config: Any = model.config
    for path, linears in added.items():
        config.prunepath["places"][path]["biases"] = linears
    return sum(
        out_width(model.get_submodule(f"{place.module}.{linear}"))
        for place in places
        for linear in added[place.path]
    )
