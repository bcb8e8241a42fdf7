"""Block influence: what hardly turns the residual stream leaves first, one-shot.

    BI_l = 1 - mean over tokens of cos(x_l, x_{l+1})        (ShortGPT, arXiv 2403.03853)

with x_l what enters layer l. The same of single sub-layers, between the stream before and behind
their residual add, is the criterion of He et al. (2024, arXiv 2406.15786). With `blocks` whole runs
of layers are compared (`blocks.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prunepath.errors import NumericsError, RequestError
from prunepath.methods.depth.blocks import block_order, free_choices
from prunepath.methods.depth.sublayers import Layer, sublayers, whole_layers
from prunepath.methods.method import FloatArray, Method, MethodConfig, Ranking, SearchContext
from prunepath.statistics.collect import Wanted
from prunepath.statistics.influence import mean_distances
from prunepath.structure.units import Structure, UnitGroup

__all__ = ["BlockInfluence", "BlockInfluenceConfig"]

_CHOICES = {"unit": ("layer", "sublayer"), "distance": ("cosine", "angular")}
_USUAL_SHARE = 4
"""Without a number, blocks are the paper's where a quarter of the layers is gone."""


@dataclass(frozen=True, kw_only=True)
class BlockInfluenceConfig(MethodConfig):
    """Settings of `block-influence`.

    Raises:
        RequestError: a value that is unknown, or values that do not go together.
    """

    unit: str = field(
        default="layer",
        metadata={"help": "layer (all its sub-layers leave together) or sublayer"},
    )
    distance: str = field(
        default="cosine", metadata={"help": "cosine (1 - cos) or angular (arccos(cos) / pi)"}
    )
    blocks: bool = field(
        default=False, metadata={"help": "whether layers leave side by side, as one block"}
    )
    block_layers: int = field(
        default=0,
        metadata={
            "help": "number of layers at which that block is the closest of all; 0: a quarter of "
            "those there are"
        },
    )

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise RequestError(
                    f"unknown {name} '{getattr(self, name)}' of the method 'block-influence'; use "
                    f"{' or '.join(allowed)}"
                )
        if self.blocks and self.unit != "layer":
            raise RequestError(
                f"blocks are runs of layers, and the unit is '{self.unit}'; give unit=layer, or "
                "leave blocks out"
            )
        if self.block_layers < 0:
            raise RequestError(
                f"block_layers is {self.block_layers}; give a number of layers, or 0 for a quarter"
            )
        if self.block_layers and not self.blocks:
            raise RequestError(
                f"block_layers is {self.block_layers}, and layers leave one by one; set "
                "blocks=true, too"
            )


class BlockInfluence(Method):
    """How far a layer or a sub-layer turns the residual stream, on dense statistics.

    Deviations: ShortGPT and Gromov et al. take the stream of decoders; here every stack of any
    family is taken by itself, encoders that norm last included. Gromov et al. look at the last
    token of a sample; here all tokens count. Their heuristic (drop from the last but one layer
    inwards) is not offered.
    """

    name = "block-influence"
    summary = "how far a layer or sub-layer turns the residual stream"
    scope = "whole sub-layers, and with unit=layer those of layers that can leave whole"
    Config = BlockInfluenceConfig
    objectives = ("kl",)

    def scored_groups(self, structure: Structure) -> tuple[UnitGroup, ...]:
        if self.config.unit == "sublayer":
            return sublayers(structure)
        whole = {group.name for groups in whole_layers(structure).values() for group in groups}
        return tuple(group for group in structure.groups if group.name in whole)

    def wanted(self) -> Wanted:
        return Wanted(
            gradients=False,
            moments=True,
            output_gradients=False,
            influence=not self.config.blocks,
            blocks=self.config.blocks,
        )

    def rank(self, context: SearchContext) -> Ranking:
        groups = self.scored_groups(context.structure)
        if self.config.unit == "sublayer":
            damage = {
                g.name: self._turn(context, g.place, f"the sub-layer '{g.name}'") for g in groups
            }
            return Ranking(damage=_arrays(damage), order="damage")
        layers = whole_layers(context.structure)
        if self.config.blocks:
            scores, extra = self._blocks(context, layers)
        else:
            scores, extra = (
                {path: self._turn(context, path, f"the layer '{path}'") for path in layers},
                {},
            )
        return Ranking(
            damage=_arrays({g.name: scores[path] for path, gs in layers.items() for g in gs}),
            order="damage",
            extra=extra,
            together=tuple(tuple(g.name for g in gs) for gs in layers.values() if len(gs) > 1),
        )

    def _turn(self, context: SearchContext, key: str, what: str) -> float:
        """The mean distance over all tokens."""
        sums = context.statistics.influence.get(key)
        if sums is None:
            raise RequestError(
                f"nothing was measured of {what}: what it gives has another shape than what enters "
                "it, or is never added to that; use a method that runs the model, like finercut"
            )
        value = float(mean_distances(sums, self.config.distance))
        if not np.isfinite(value):
            raise NumericsError(
                f"{what} turns the residual stream by {value}; check the model's weights and the "
                "calibration data, or load the model in float32 or bfloat16"
            )
        return value

    def _blocks(
        self, context: SearchContext, layers: Mapping[str, Layer]
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Layer -> the distance of the block that is gone with it, and what is told about it."""
        by_stack: dict[str, dict[int, str]] = {}
        for path, groups in layers.items():
            by_stack.setdefault(context.structure.stack_of(groups[0]).path, {})[groups[0].layer] = (
                path
            )
        scores: dict[str, float] = {}
        told: dict[str, Any] = {}
        for stack, paths in by_stack.items():
            sums = context.statistics.blocks.get(stack)
            if sums is None:
                raise RequestError(
                    f"the statistics hold no distances between the layers of '{stack}'; collect "
                    "them with what the method's wanted() asks for"
                )
            distances = mean_distances(sums, self.config.distance).numpy()
            wanted = self.config.block_layers or max(1, len(paths) // _USUAL_SHARE)
            for run in _runs(sorted(paths), distances):
                part = distances[np.ix_(run, run)]
                if np.isnan(np.diagonal(part)).any():
                    lacking = paths[run[int(np.isnan(np.diagonal(part)).argmax())]]
                    self._turn(context, lacking, f"the layer '{lacking}'")
                found = block_order(part, wanted)
                least = 0.0
                for layer, value in zip(found.layers, found.distances, strict=True):
                    # A larger block may be closer than one inside it, and still leaves later.
                    least = float(np.nextafter(np.float32(max(least, value)), np.float32(np.inf)))
                    scores[paths[run[layer]]] = least
                told[f"{stack}.{run[0]}"] = {
                    "order": [run[layer] for layer in found.layers],
                    "closest": {str(n): run[at] for n, at in free_choices(part).items()},
                }
        return scores, {"blocks": told}


def _runs(layers: Sequence[int], distances: FloatArray) -> list[list[int]]:
    """Layers that lie side by side, of one width."""
    runs: list[list[int]] = []
    for layer in layers:
        last = runs[-1][-1] if runs else None
        if last == layer - 1 and np.isfinite(distances[last, layer]):
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return runs


def _arrays(values: Mapping[str, float]) -> dict[str, FloatArray]:
    return {name: np.array([value]) for name, value in values.items()}
