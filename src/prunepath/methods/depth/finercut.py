"""FinerCut: sub-layers leave one after the other, each time the one the answer misses least.

    j_k = argmin_j d(f(x; all but R_k and j), f(x; all)),    R_{k+1} = R_k + j_k

(arXiv 2405.18218) with d on the model's answer (`distance.py`). The order of a path is the order of
removal; no costs are weighed, as in the paper.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from prunepath.data.samples import Samples
from prunepath.errors import RequestError
from prunepath.methods.depth.distance import DISTANCES, require_distance
from prunepath.methods.depth.greedy import Greedy, Removals
from prunepath.methods.depth.sublayers import sublayers
from prunepath.methods.method import (
    CostClass,
    FloatArray,
    Method,
    MethodConfig,
    Ranking,
    SearchContext,
)
from prunepath.methods.optin.batching import trimmed
from prunepath.methods.run_state import RunState
from prunepath.structure.gates import frozen
from prunepath.structure.units import Structure, UnitGroup

__all__ = ["FinerCut", "FinerCutConfig"]

_UNITS = ("all", "attention", "ffn")


@dataclass(frozen=True, kw_only=True)
class FinerCutConfig(MethodConfig):
    """Settings of `finercut`.

    Raises:
        RequestError: a value that is unknown or out of range.
    """

    distance: str = field(
        default="auto",
        metadata={
            "help": "js (Jensen-Shannon), kl (the task's own distance, KL of distributions), "
            "angular (between the answers); auto: js of distributions, else kl"
        },
    )
    samples: int = field(
        default=10, metadata={"help": "calibration samples that are compared, if there are so many"}
    )
    tokens: int = field(
        default=256, metadata={"help": "longest text that is compared; 0: as long as samples are"}
    )
    steps: int = field(
        default=0,
        metadata={
            "help": "sub-layers that leave one by one; the rest follows as the last step ranks it; "
            "0: all"
        },
    )
    protect: float = field(
        default=0.0, metadata={"help": "share of the first layers of every stack that stay"}
    )
    units: str = field(
        default="all", metadata={"help": "which sub-layers are tried: all, attention or ffn"}
    )

    def __post_init__(self) -> None:
        for name, allowed in (("distance", ("auto", *DISTANCES)), ("units", _UNITS)):
            if getattr(self, name) not in allowed:
                raise RequestError(
                    f"unknown {name} '{getattr(self, name)}' of the method 'finercut'; use "
                    f"{' or '.join(allowed)}"
                )
        if self.samples < 1:
            raise RequestError(f"samples is {self.samples}; it must be at least 1")
        if self.tokens < 0 or self.tokens == 1:
            raise RequestError(
                f"tokens is {self.tokens}; give the longest text, at least 2, or 0 for all of it"
            )
        if self.steps < 0:
            raise RequestError(f"steps is {self.steps}; give a number of sub-layers, or 0 for all")
        if not 0 <= self.protect < 1:
            raise RequestError(
                f"protect is {self.protect}; it is the share of layers that stay, so give 0 or "
                "more and less than 1, like 0.4"
            )


class FinerCut(Method):
    """Greedy removal of sub-layers by the distance of the model's answer to the dense one.

    Deviations: the paper's models are decoders; here every task's own answer is compared, and
    padding is left out. Its released code has the two divergences of Jensen-Shannon with their
    arguments exchanged (`distance.py`). A sub-layer with a bias behind it leaves that bias.
    """

    name = "finercut"
    summary = "sub-layers one after the other, by the distance of the answer"
    scope = "whole sub-layers of layers and kinds that it may try"
    Config = FinerCutConfig
    objectives = ("kl",)

    def cost_class(self) -> CostClass:
        return "search"

    def scored_groups(self, structure: Structure) -> tuple[UnitGroup, ...]:
        config = self.config
        return tuple(
            group
            for group in sublayers(structure)
            if config.units in ("all", group.kind)
            and group.layer >= round(config.protect * structure.stack_of(group).num_layers)
        )

    def rank(self, context: SearchContext) -> Ranking:
        config = self.config
        few = context.samples.rows(0, min(config.samples, len(context.samples)))
        distance = config.distance if config.distance != "auto" else _usual(context, few)
        require_distance(context.task, distance)
        groups = self.scored_groups(context.structure)
        store = RunState(context, "finercut", config.to_dict())
        with frozen(context.model):
            greedy = Greedy(context, shortened(trimmed(few), config.tokens), groups, distance)
            found = greedy.run(config.steps, store)
        return Ranking(
            damage=_damages(groups, found),
            order="damage",
            extra={
                "removals": list(found.order),
                "distances": list(found.distances),
                "distance": distance,
            },
        )


def _usual(context: SearchContext, samples: Samples) -> str:
    """Jensen-Shannon where the answer is a distribution, else the task's own distance."""
    if not context.task.distribution:
        return "kl"
    one = samples.rows(0, 1).to(next(context.model.parameters()).device)
    with torch.no_grad(), frozen(context.model):
        return "js" if context.task.output(context.model, one).shape[-1] > 1 else "kl"


def shortened(samples: Samples, tokens: int) -> Samples:
    """Samples whose texts are at most so long: the first tokens of each; 0: as they are.

    Inputs with a value per token go with `input_ids` (or `decoder_input_ids`), labels of that
    length, too. What is padded on the left loses its end like any other.
    """
    if not tokens:
        return samples
    inputs, labels = dict(samples.inputs), samples.labels
    for side in ("", "decoder_"):
        ids = inputs.get(f"{side}input_ids")
        if ids is None or ids.shape[1] <= tokens:
            continue
        width = ids.shape[1]
        for name, value in inputs.items():
            if name.startswith("decoder_") == bool(side) and value.shape[1:] == (width,):
                inputs[name] = value[:, :tokens]
        if labels is not None and labels.shape[1:] == (width,):
            labels = labels[:, :tokens]
    return replace(samples, inputs=inputs, labels=labels, fingerprint=samples.fingerprint)


def _damages(groups: Iterable[UnitGroup], found: Removals) -> dict[str, FloatArray]:
    """The distance at which every group left, made to grow from one to the next: removals may help
    each other, and a path has no ties. Float32, as in its file."""
    rest = sorted(found.rest.items(), key=lambda item: item[1])  # stable: ties as they are tried
    ordered = [*zip(found.order, found.distances, strict=True), *rest]
    damage: dict[str, FloatArray] = {}
    least = np.float32(0.0)
    for name, distance in ordered:
        least = max(np.float32(distance), np.nextafter(least, np.float32(np.inf)))
        damage[name] = np.array([least], dtype=np.float64)
    return {group.name: damage[group.name] for group in groups}
