"""Axis layouts: how the positions along a tensor axis are made of named factors.

A projection of a grouped-query attention has rows ordered by KV group, query head of the group,
rotary half and rotary pair. We write that as `"kv rep half pair"`, the way einops would. A unit
is named by some of these factors (`"kv pair"`: one rotary pair of one KV group); every position
then belongs to exactly one unit, and a cut, a gate and a cost all follow from the same words.

A fused projection is several layouts on one axis: `"head qk | head qk | head value"` one after the
other, or `"head: qk | qk | value"` interleaved head by head; a `;` ends what is interleaved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

__all__ = ["Axis", "AxisLayout", "BoolArray", "IntArray"]

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
        """Read `"kv rep pair"` with the sizes of its factors; a number stands for itself."""
        names = tuple(text.split())
        return cls(names, tuple(int(n) if n.isdigit() else sizes[n] for n in names))

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


@dataclass(frozen=True)
class Axis:
    """One axis of a tensor: one or more layouts side by side, possibly interleaved.

    Args:
        parts: layouts that follow one another; none at all: an axis no unit ever cuts.
        outer: factors in front of all parts; every value of theirs holds one copy of each part.
        fixed_width: width of an axis without parts.
        after: what follows, with its own outer factors.

    Example:
        >>> fused = Axis.parse("head: qk | qk | value", {"head": 2, "qk": 1, "value": 2})
        >>> fused.size
        8
        >>> fused.owner(AxisLayout.parse("head value", {"head": 2, "value": 2})).tolist()
        [-1, -1, 0, 1, -1, -1, 2, 3]
    """

    parts: tuple[AxisLayout, ...]
    outer: AxisLayout = AxisLayout((), ())
    fixed_width: int = 0
    after: Axis | None = None

    @classmethod
    def parse(cls, text: str, sizes: Mapping[str, int]) -> Axis:
        """Read `"head: qk | qk | value"` with the sizes of its factors."""
        own, semicolon, more = text.partition(";")
        before, colon, inside = own.partition(":")
        outer, rest = (before, inside) if colon else ("", before)
        parts = tuple(AxisLayout.parse(part, sizes) for part in rest.split("|"))
        after = cls.parse(more, sizes) if semicolon else None
        return cls(parts, AxisLayout.parse(outer, sizes), after=after)

    @classmethod
    def fixed(cls, width: int) -> Axis:
        """An axis that no unit ever cuts."""
        return cls((), fixed_width=width)

    @property
    def cuttable(self) -> bool:
        """Whether a unit may own positions of this axis."""
        return bool(self.parts)

    @property
    def size(self) -> int:
        """Number of positions."""
        if not self.parts:
            return self.fixed_width
        return self._own_size + (self.after.size if self.after else 0)

    @property
    def _own_size(self) -> int:
        return self.outer.size * sum(part.size for part in self.parts)

    @property
    def num_parts(self) -> int:
        """Number of layouts side by side."""
        return len(self.parts) + (self.after.num_parts if self.after else 0)

    @property
    def factors(self) -> dict[str, int]:
        """Every named factor with its size; numbers in a layout are no factors."""
        layouts = (self.outer, *self.parts)
        pairs = {n: s for x in layouts for n, s in zip(x.names, x.sizes, strict=True)}
        own = {name: size for name, size in pairs.items() if not name.isdigit()}
        return own | (self.after.factors if self.after else {})

    def part(self, index: int) -> AxisLayout:
        """The product that the positions of one part are made of."""
        if self.after and index >= len(self.parts):
            return self.after.part(index - len(self.parts))
        own = self.parts[index]
        return AxisLayout(self.outer.names + own.names, self.outer.sizes + own.sizes)

    def positions(self, index: int) -> IntArray:
        """Where one part lies on the axis, in the order of `part`."""
        if self.after and index >= len(self.parts):
            return self._own_size + self.after.positions(index - len(self.parts))
        widths = [part.size for part in self.parts]
        start = sum(widths[:index])
        inner = np.arange(start, start + widths[index])
        outer = np.arange(self.outer.size) * sum(widths)
        return (outer[:, None] + inner).reshape(-1)

    def covers(self, unit: AxisLayout) -> bool:
        """Whether any position here belongs to a unit of that layout."""
        return any(self.part(index).covers(unit) for index in range(self.num_parts))

    def owner(self, unit: AxisLayout) -> IntArray:
        """For every position, the unit it belongs to, or -1; shape (size,)."""
        return _axis_owner(self, unit)

    def resized(self, sizes: Mapping[str, int]) -> Axis:
        """The same words with other sizes; factors that are not named keep theirs."""

        def again(layout: AxisLayout) -> AxisLayout:
            pairs = zip(layout.names, layout.sizes, strict=True)
            return AxisLayout(layout.names, tuple(sizes.get(n, s) for n, s in pairs))

        parts = tuple(again(part) for part in self.parts)
        after = self.after.resized(sizes) if self.after else None
        return Axis(parts, again(self.outer), self.fixed_width, after)

    def __str__(self) -> str:
        inner = " | ".join(str(part) for part in self.parts) or str(self.fixed_width)
        own = f"{self.outer}: {inner}" if self.outer.names else inner
        return f"{own} ; {self.after}" if self.after else own


@lru_cache(maxsize=4096)
def _owner(layout: AxisLayout, unit: AxisLayout) -> IntArray:
    grid = np.indices(layout.sizes).reshape(len(layout.sizes), -1)
    index = np.zeros(layout.size, dtype=np.int64)
    for name, size in zip(unit.names, unit.sizes, strict=True):
        index = index * size + grid[layout.names.index(name)]
    index.setflags(write=False)
    return index


@lru_cache(maxsize=4096)
def _axis_owner(axis: Axis, unit: AxisLayout) -> IntArray:
    index = np.full(axis.size, -1, dtype=np.int64)
    for number in range(axis.num_parts):
        layout = axis.part(number)
        if layout.covers(unit):
            index[axis.positions(number)] = layout.owner(unit)
    index.setflags(write=False)
    return index
