"""A quadratic model of what closing gates does to the loss, around a point where it was measured.

With x_u = 1 where unit u is removed, x0 where the gates stood when they were measured and
d = x - x0 (iCBS, arXiv 2411.17796, on units instead of weights):

    E(x) = 1/2 (1 - rho) ||G d||^2 + 1/2 rho sum_u ||G_u||^2 d_u^2 - c sum_u g_u d_u

The rows of G are gate gradients of samples, so G^T G estimates the Fisher matrix of all units of a
block: exact for these rows, and never formed. g is the mean gradient of the gates at x0, which is
zero for the distance from the dense model at the dense model itself.

rho shrinks what few rows only seem to say of pairs: off-diagonal entries towards zero by
rho = sum Var(F_uv) / sum F_uv^2 over pairs, the least expected squared error (Schaefer & Strimmer
2005, there for correlations), from the rows themselves.

Shapes: R rows, U units of a block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from prunepath.structure.selection import Selection

__all__ = ["Block", "QuadraticModel", "shrinkage"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Block:
    """Groups whose rows are of the same samples, so that couplings between them are known.

    Args:
        rows: group -> its rows of gate gradients, (R, units) each, R alike.
        slopes: group -> c times the mean gradient of its gates, (units,); absent: zero.
        closed: group -> 1 where a gate was closed when that was measured, (units,); absent: none.
        shrink: rho; None estimates it from the rows.
    """

    rows: Mapping[str, FloatArray]
    slopes: Mapping[str, FloatArray] = field(default_factory=dict)
    closed: Mapping[str, FloatArray] = field(default_factory=dict)
    shrink: float | None = None

    @cached_property
    def matrix(self) -> FloatArray:
        """G, (R, U)."""
        return np.concatenate([np.asarray(v, dtype=np.float64) for v in self.rows.values()], axis=1)

    @cached_property
    def norms(self) -> FloatArray:
        """||G_u||^2, (U,)."""
        return np.asarray(np.square(self.matrix).sum(0), dtype=np.float64)

    @cached_property
    def rho(self) -> float:
        """How far pairs are shrunk."""
        return shrinkage(self.matrix) if self.shrink is None else self.shrink

    def flat(self, values: Mapping[str, FloatArray]) -> FloatArray:
        """One number per unit as (U,); zero for groups that are absent."""
        parts = [
            np.asarray(values[name], dtype=np.float64)
            if name in values
            else np.zeros(rows.shape[1])
            for name, rows in self.rows.items()
        ]
        return np.concatenate(parts)

    def shift(self, selection: Selection) -> FloatArray:
        """d, (U,)."""
        gone = {
            name: 1.0 - mask.astype(np.float64)
            for name, mask in selection.keep.items()
            if name in self.rows
        }
        return self.flat(gone) - self.flat(self.closed)

    def energy(self, selection: Selection) -> float:
        """E of a selection, per term of the loss."""
        d = self.shift(selection)
        together = float(np.square(self.matrix @ d).sum())
        alone = float(self.norms @ np.square(d))
        first = float(self.flat(self.slopes) @ d)
        return 0.5 * ((1 - self.rho) * together + self.rho * alone) - first


@dataclass(frozen=True, eq=False)
class QuadraticModel:
    """Blocks that do not know of each other; energies add up.

    Args:
        blocks: no group is in two of them.
    """

    blocks: Sequence[Block]

    def energy(self, selection: Selection) -> float:
        """E of a selection, per term of the loss."""
        return sum(block.energy(selection) for block in self.blocks)


def shrinkage(rows: FloatArray) -> float:
    """rho of rows (R, U): 0 where pairs are well known, 1 where they are noise.

    Example:
        >>> same = np.ones((50, 1)) @ np.ones((1, 3))  # the pairs of every row say the same
        >>> shrinkage(same)
        0.0
    """
    count = len(rows)
    squares = np.square(rows)
    if count < 2:
        return 1.0  # one row says nothing of how much rows differ
    gram = rows @ rows.T
    # Sums over pairs u != v, from (R, R) and (R, U) alone.
    entries = float(np.square(gram).sum()) - float(np.square(squares.sum(0)).sum())
    second = float(np.square(squares.sum(1)).sum()) - float(np.square(squares).sum())
    variance = count / (count - 1) * (second - entries / count)
    return float(np.clip(variance / entries, 0.0, 1.0)) if entries > 0 else 1.0
