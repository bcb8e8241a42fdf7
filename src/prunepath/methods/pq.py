"""PQ index: how far each group may shrink, read off how unequal the norms of its units are.

The PQ index of d numbers w, I = 1 - d^(1/q - 1/p) ||w||_p / ||w||_q for 0 < p < q, is 0 where all
are equal and near 1 where few hold all (Diao et al., arXiv 2302.05601). At least

    r = d (1 + eta)^(-q/(q-p)) (1 - I)^(pq/(q-p))

of them are worth keeping, so a group gives up min(gamma (1 - r/d), beta) of its units by itself.

The index was made for the weights of a network that is trained again; here w are the norms of the
units of one group, and nothing is trained. Every group runs down to its own size in proportion: at
half of the way, each has lost half of what it may lose. Behind that point the rest leaves in
proportion, too, so the path has every size. No data is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from prunepath.errors import RequestError
from prunepath.methods.baselines import unit_norms
from prunepath.methods.method import (
    CostClass,
    FloatArray,
    Method,
    MethodConfig,
    Ranking,
    SearchContext,
)
from prunepath.progress import note
from prunepath.structure.cost import cost_of
from prunepath.structure.selection import Selection
from prunepath.structure.units import UnitGroup

__all__ = ["Pq", "PqConfig", "pq_index", "share_to_remove"]


@dataclass(frozen=True, kw_only=True)
class PqConfig(MethodConfig):
    """Settings of `pq`.

    Raises:
        RequestError: a value out of range.
    """

    p: float = field(default=0.5, metadata={"help": "the smaller norm"})
    q: float = field(default=1.0, metadata={"help": "the larger norm"})
    eta: float = field(
        default=0.0, metadata={"help": "how much of the q-norm small units may hold"}
    )
    gamma: float = field(default=1.0, metadata={"help": "how much of what may leave does leave"})
    beta: float = field(default=0.9, metadata={"help": "largest part of a group that may leave"})

    def __post_init__(self) -> None:
        if not 0 < self.p < self.q < float("inf"):
            raise RequestError(f"p is {self.p} and q is {self.q}; they must be 0 < p < q")
        if not 0 <= self.eta < float("inf"):
            raise RequestError(f"eta is {self.eta}; it must be 0 or above")
        if not 0 < self.gamma < float("inf"):
            raise RequestError(f"gamma is {self.gamma}; it must be above 0")
        if not 0 < self.beta < 1:
            raise RequestError(f"beta is {self.beta}; it must be between 0 and 1")


class Pq(Method):
    """Groups shrink to the sizes that their PQ indices suggest."""

    name = "pq"
    summary = "each group shrinks by how unequal the norms of its units are; no data"
    Config = PqConfig

    def cost_class(self) -> CostClass:
        return "data-free"

    def rank(self, context: SearchContext) -> Ranking:
        structure = context.structure
        damage: dict[str, FloatArray] = {}
        keep = {}
        for group in structure.groups:
            norms = unit_norms(context, group)
            count = int(share_to_remove(norms, self.config) * group.lane_width)
            damage[group.name] = _in_proportion(norms, group, count)
            if group in structure.finest_groups:
                keep[group.name] = damage[group.name] > 1
        dense = cost_of(structure, Selection({})).params
        ratio = (dense - cost_of(structure, Selection(keep)).params) / structure.block_params
        note(context.progress, f"groups are at their own sizes at a ratio of about {ratio:.3f}")
        return Ranking(damage=damage, order="damage", extra={"own_ratio": ratio})


def pq_index(values: FloatArray, p: float, q: float) -> float:
    """How unequal positive numbers are: 0 all alike, towards 1 where few hold all.

    Args:
        values: at least one number, none negative.
        p, q: orders of the two norms, 0 < p < q.

    Example:
        >>> round(pq_index(np.ones(4), 0.5, 1.0), 12)
        0.0
        >>> pq_index(np.array([1.0, 0.0, 0.0, 0.0]), 0.5, 1.0)
        0.75
    """
    largest = float(values.max())
    if largest <= 0:
        return 0.0
    scaled = values / largest  # powers of what is very small or large would lose it
    smaller, larger = (float((scaled**power).sum()) ** (1 / power) for power in (p, q))
    return float(1 - len(values) ** (1 / q - 1 / p) * smaller / larger)


def share_to_remove(norms: FloatArray, config: PqConfig) -> float:
    """Part of a group that may leave, in [0, beta].

    Args:
        norms: of its units, (units,).
        config: orders and limits.
    """
    p, q = config.p, config.q
    rest = max(0.0, 1 - pq_index(norms, p, q))
    least = (1 + config.eta) ** (-q / (q - p)) * rest ** (p * q / (q - p))
    return float(max(0.0, min(config.gamma * (1 - least), config.beta)))


def _in_proportion(norms: FloatArray, group: UnitGroup, count: int) -> FloatArray:
    """How far along its way a group is when each unit leaves, (units,): up to 1 the first `count`
    of every lane, up to 2 the rest."""
    lanes = norms.reshape(group.num_lanes, group.lane_width)
    turn = np.argsort(np.argsort(lanes, axis=1, kind="stable"), axis=1, kind="stable") + 1.0
    rest = max(1, group.lane_width - count)
    way = np.where(turn <= count, turn / max(1, count), 1 + (turn - count) / rest)
    return np.asarray(way.reshape(-1), dtype=np.float64)
