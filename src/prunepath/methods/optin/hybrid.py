"""Estimated scores for all units, exact ones where an estimate could decide wrongly.

Removing a whole head is no small change: what it does is not quadratic, and heads are few. So units
that are made of finer ones are all removed and measured. Of the finer ones, those are that lie
nearest to where a budget will cut: the order of the others does not matter there. The cut is looked
up again after the first half of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from prunepath.methods.method import FloatArray
from prunepath.methods.optin.exact import Measured, measure
from prunepath.methods.optin.gauss_newton import gauss_newton_scores
from prunepath.methods.optin.scene import Scene
from prunepath.methods.optin.scores import TrajectoryScores
from prunepath.structure.cost import unit_cost

__all__ = ["distance_to_cut", "hybrid_scores", "nearest_to_cut", "refined"]

Units = NDArray[np.int64]
_ROUNDS = 2


def hybrid_scores(scene: Scene) -> TrajectoryScores:
    """Estimates, with heads and the units nearest to the cut measured exactly.

    Args:
        scene: samples, features and rows; `config.cut` says where the cut is expected, and
            `config.exact_share` which share of the fine units is measured there.

    Returns:
        Scores; `exact` tells the two kinds apart.

    Raises:
        NumericsError: a score is not finite.

    Example:
        >>> scores = hybrid_scores(Scene.of(context, config))  # doctest: +SKIP
    """
    return refined(scene, gauss_newton_scores(scene))


def refined(scene: Scene, scores: TrajectoryScores) -> TrajectoryScores:
    """Estimates with heads and the units nearest to the cut measured.

    Args:
        scene: samples, features and rows; see `hybrid_scores`.
        scores: estimates of all units.
    """
    structure = scene.context.structure
    fine = {group.name for group in structure.finest_groups}
    coarse = {
        group.name: np.arange(group.num_units)
        for group in structure.groups
        if group.name not in fine
    }
    if coarse:
        scores = _with(scores, coarse, measure(scene, coarse, "optin-coarse"))
    units = sum(group.num_units for group in structure.finest_groups)
    number = round(scene.config.exact_share * units)
    for turn in range(_ROUNDS):
        near = nearest_to_cut(
            scene, scores, number * (turn + 1) // _ROUNDS - number * turn // _ROUNDS
        )
        if near:
            scores = _with(scores, near, measure(scene, near, f"optin-near-{turn}"))
    return scores


def nearest_to_cut(scene: Scene, scores: TrajectoryScores, number: int) -> dict[str, Units]:
    """The estimated units whose damage per parameter is nearest to that at the cut, as a ratio.

    The cut is where the finest units, in the order of damage per parameter, reach `config.cut` of
    their MACs. That is not the exact arithmetic of a budget, which also ties lanes and knows what
    is fixed; being off by a little costs a few of the units measured.

    Args:
        scene: whose structure and configuration count.
        scores: what is known.
        number: units wanted.

    Returns:
        group -> units, ascending; groups without any are absent.
    """
    groups = scene.context.structure.finest_groups
    if not number:
        return {}
    distance = distance_to_cut(scene, scores)
    distance[np.concatenate([scores.exact[group.name] for group in groups])] = np.inf
    chosen = np.argsort(distance, kind="stable")[:number]
    picked = np.zeros(len(distance), dtype=np.bool_)
    picked[chosen[np.isfinite(distance[chosen])]] = True
    parts = np.split(picked, np.cumsum([group.num_units for group in groups])[:-1])
    return {
        group.name: np.flatnonzero(part)
        for group, part in zip(groups, parts, strict=True)
        if part.any()
    }


def distance_to_cut(scene: Scene, scores: TrajectoryScores) -> FloatArray:
    """How far every finest unit's damage per parameter is from that at the cut, |log of the ratio|.

    Infinite where one of them is 0. Units group by group, as `structure.finest_groups` has them.
    """
    structure, config = scene.context.structure, scene.config
    damage = scores.combine(config, structure)
    groups = structure.finest_groups
    costs = [unit_cost(structure, group, scene.longest) for group in groups]
    density = np.concatenate(
        [
            damage[group.name] / max(1, cost.params)
            for group, cost in zip(groups, costs, strict=True)
        ]
    )
    macs = np.concatenate(
        [np.full(group.num_units, cost.macs) for group, cost in zip(groups, costs, strict=True)]
    )
    order = np.argsort(-density, kind="stable")
    kept = np.cumsum(macs[order])
    at = int(np.searchsorted(kept, config.cut * kept[-1]))
    threshold = density[order[min(at, len(order) - 1)]]
    distance = np.full(len(density), np.inf)
    known = (density > 0) & (threshold > 0)
    distance[known] = np.abs(np.log(density[known] / threshold))
    return distance


def _with(
    scores: TrajectoryScores, units: Mapping[str, Units], measured: Mapping[str, Measured]
) -> TrajectoryScores:
    """The scores with some units replaced by what was measured."""
    md, kd = dict(scores.md), dict(scores.kd)
    exact = dict(scores.exact)
    for name, chosen in units.items():
        md[name], kd[name], exact[name] = md[name].copy(), kd[name].copy(), exact[name].copy()
        md[name][chosen], kd[name][chosen] = measured[name]
        exact[name][chosen] = True
    return replace(scores, md=md, kd=kd, exact=exact)
