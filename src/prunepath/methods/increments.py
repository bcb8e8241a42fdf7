"""How much of every layer leaves in a step, and which of its units: increments of shares.

The share of layer l that is gone grows by a step of 1/T, less where the layer matters
(Adapt-Pruner, arXiv 2502.03460):

    s_l <- clip(s_l + 1/T - A r_l, s_l, cap),    r_l = centred(-cos_l) / max |centred(-cos)|

with cos_l the mean cosine between input and output of the layer. The r_l have mean zero, so the
average share grows by 1/T as long as no layer is at its limit. Deviation: shares do not fall where
A is above 1/T, since what is gone does not come back along a path.

A share is a part of the parameters of a layer's units. Units of one lane each leave together, as
allocation will take them; the least important first, by damage per parameter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prunepath.errors import ModelError, NumericsError
from prunepath.methods.method import FloatArray
from prunepath.statistics.influence import mean_distances
from prunepath.statistics.sums import Statistics
from prunepath.structure.axes import IntArray
from prunepath.structure.units import UnitGroup

__all__ = [
    "Bundle",
    "alive_bundles",
    "grown",
    "layer_cosines",
    "layer_importance",
    "within_share",
]


def layer_cosines(sums: Statistics, layers: Iterable[str]) -> dict[str, float]:
    """Mean cosine between what enters a layer and what leaves it, by layer; in [-1, 1].

    Args:
        sums: with `influence`.
        layers: full module paths.

    Raises:
        ModelError: nothing was compared for a layer.
        NumericsError: a cosine is not finite.
    """
    found = {}
    for layer in layers:
        if layer not in sums.influence:
            raise ModelError(
                f"the layer '{layer}' did not run on the calibration data, or returns another "
                "shape than it is given, so nothing is known of how it turns its tokens; use a "
                "method that does not look at layers"
            )
        found[layer] = 1 - float(mean_distances(sums.influence[layer], "cosine"))
        if not math.isfinite(found[layer]):
            raise NumericsError(
                f"the cosine between input and output of the layer '{layer}' is {found[layer]}; "
                "load the model in float32 or bfloat16"
            )
    return found


def layer_importance(cosines: Mapping[str, float]) -> dict[str, float]:
    """r of every layer: in [-1, 1], mean 0; all 0 where layers are alike.

    Args:
        cosines: layer -> mean cosine between its input and output.

    Example:
        >>> layer_importance({"a": 0.5, "b": 0.75, "c": 1.0})
        {'a': 1.0, 'b': 0.0, 'c': -1.0}
    """
    values = -np.array(list(cosines.values()), dtype=np.float64)
    centred = values - values.mean()
    largest = float(np.abs(centred).max())
    scaled = centred / largest if largest > 0 else np.zeros_like(centred)
    return dict(zip(cosines, (float(value) + 0.0 for value in scaled), strict=True))


def grown(
    shares: Mapping[str, float],
    importance: Mapping[str, float],
    *,
    steps: int,
    amplitude: float,
    cap: float,
) -> dict[str, float]:
    """Shares after one more step; see the top of this file.

    Example:
        >>> grown({"a": 0.0, "b": 0.0}, {"a": 1.0, "b": -1.0}, steps=50, amplitude=0.02, cap=0.99)
        {'a': 0.0, 'b': 0.04}
    """
    found = {}
    for layer, share in shares.items():
        wish = share + 1 / steps - amplitude * importance[layer]
        found[layer] = min(cap, max(share, wish))
    return found


@dataclass(frozen=True)
class Bundle:
    """Units that leave together: one of every lane of a group.

    Args:
        group: theirs.
        units: their indices, (lanes,).
        score: mean of their damages per cost.
        cost: parameters of all of them.
    """

    group: UnitGroup
    units: IntArray
    score: float
    cost: float


def alive_bundles(
    group: UnitGroup, scores: FloatArray, gone: FloatArray, unit_params: float
) -> list[Bundle]:
    """What is left of a group, the least important first.

    Args:
        group: any group.
        scores: damage per cost, (units,).
        gone: when each unit left, (units,); infinite where it has not. Equally many per lane.
        unit_params: parameters of one unit.
    """
    alive = np.isinf(gone).reshape(group.num_lanes, group.lane_width)
    count = int(alive[0].sum())
    values = np.where(alive, scores.reshape(alive.shape), np.inf)
    order = np.lexsort((~alive, values), axis=1)[:, :count]  # a score may be infinite, too
    first = np.arange(group.num_lanes)[:, None] * group.lane_width
    units = (first + order).T
    cost = unit_params * group.num_lanes
    return [Bundle(group, row, float(scores[row].mean()), cost) for row in units]


def within_share(bundles: Sequence[Bundle], room: float) -> list[Bundle]:
    """The least important bundles whose cost comes nearest to what may leave.

    Args:
        bundles: of one layer; those of one group in the order they leave.
        room: parameters that may still leave.
    """
    chosen, spent = [], 0.0
    for bundle in sorted(bundles, key=lambda bundle: bundle.score):  # stable: ties keep their order
        if spent + bundle.cost / 2 > room:
            break
        chosen.append(bundle)
        spent += bundle.cost
    return chosen
