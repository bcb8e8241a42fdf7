"""Axis layouts: how the positions along a tensor axis are made of named factors.

A projection of a grouped-query attention has rows ordered by KV group, query head of the group,
rotary half and rotary pair. We write that as `"kv rep half pair"`, the way einops would. A unit
is named by some of these factors (`"kv pair"`: one rotary pair of one KV group); every position
then belongs to exactly one unit, and a cut, a gate and a cost all follow from the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

__all__ = ["AxisLayout", "BoolArray", "IntArray"]

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class AxisLayout:
    """An ordered product of named factors, the last one fastest.

    Args:
        names: factor names, outermost first.
        sizes: number of values of each factor.

    Example:
        >>> rows = AxisLayout.parse("kv rep value", {"kv": 2, "rep": 2, "value": 3})
        >>> rows.size
        12
        >>> unit = AxisLayout.parse("kv value", {"kv": 2, "rep": 2, "value": 3})
        >>> rows.owner(unit).tolist()
        [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]

    @classmethod
    def parse(cls, text: str, sizes: Mapping[str, int]) -> AxisLayout:
        """Read `"kv rep pair"` with the sizes of its factors."""
        names = tuple(text.split())
        return cls(names, tuple(sizes[name] for name in names))

    @classmethod
    def fixed(cls, width: int) -> AxisLayout:
        """An axis of one unnamed factor: no unit ever cuts it."""
        return cls(("",), (width,))

    @property
    def cuttable(self) -> bool:
        """Whether a unit may own positions of this axis."""
        return self.names != ("",)

    @property
    def size(self) -> int:
        """Number of positions."""
        return prod(self.sizes)

    def covers(self, unit: AxisLayout) -> bool:
        """Whether every position here belongs to one unit of that layout."""
        return set(unit.names) <= set(self.names)

    def owner(self, unit: AxisLayout) -> IntArray:
        """For every position, the index of the unit it belongs to; shape (size,)."""
        return _owner(self, unit)

    def size_of(self, name: str) -> int:
        """Number of values of one factor."""
        return self.sizes[self.names.index(name)]

    def __str__(self) -> str:
        return " ".join(f"{n}={s}" for n, s in zip(self.names, self.sizes, strict=True))


@lru_cache(maxsize=4096)
def _owner(layout: AxisLayout, unit: AxisLayout) -> IntArray:
    grid = np.indices(layout.sizes).reshape(len(layout.sizes), -1)
    index = np.zeros(layout.size, dtype=np.int64)
    for name, size in zip(unit.names, unit.sizes, strict=True):
        index = index * size + grid[layout.names.index(name)]
    index.setflags(write=False)
    return index
