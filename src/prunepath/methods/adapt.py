"""Layer-adaptive increments with scoring anew after every step: Adapt-Pruner as an order of units.

In each of T steps every layer gives up a little more of its units, less where it turns its tokens
far (`increments.py`), and the least important of a layer leave first by the scores of a `base`
method. Then units that are gone are gated to zero, and scores and layers are measured anew on what
is left (Adapt-Pruner, arXiv 2502.03460, without its training between steps).

The moment a unit leaves is its place in the order, so a path holds every size, and the prefix at
the end of a step is exactly the state of that step. What is left behind the last step (the part
above `cap`) leaves by the last scores.

Deviations: the published scores add |w dL/dw| over single weights; `taylor:reduction=sum` is the
same first order of the summed gradient for a unit as a whole. A is 0.02 as in the paper (the
published command line has 0.03); a step of 1/T asks for A near 1/T, whatever T is. Only cosines are
offered: the released euclidean and Manhattan distances carry the sign of a similarity and so rank
layers backwards.

Units of one gate site can be told apart in several ways (heads, or their coordinates). The finest
are those that are gated; the others follow their layer's share, scored on the same gated model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from prunepath.errors import NumericsError
from prunepath.methods.adapt_config import AdaptConfig, base_method
from prunepath.methods.gated_sums import gated_sums
from prunepath.methods.increments import (
    Bundle,
    alive_bundles,
    grown,
    layer_cosines,
    layer_importance,
    within_share,
)
from prunepath.methods.method import CostClass, FloatArray, Method, Ranking, SearchContext
from prunepath.methods.run_state import RunState
from prunepath.progress import track
from prunepath.statistics.collect import Wanted
from prunepath.structure.cost import unit_cost
from prunepath.structure.units import UnitGroup

__all__ = ["Adapt", "AdaptConfig"]


class Adapt(Method):
    """Increments by layer importance, scored anew after every step."""

    name = "adapt"
    summary = "small steps, fewer units of layers that matter; scored anew after every step"
    scope = "what its base method scores"
    Config = AdaptConfig

    def __init__(self, config: AdaptConfig | None = None) -> None:
        super().__init__(config)
        self._base = base_method(self.config.base)

    def wanted(self) -> Wanted:
        return replace(self._base.wanted(), influence=True)

    def objective(self) -> str:
        return self._base.objective()

    def cost_class(self) -> CostClass:
        if self.config.rescoring:
            return "search"
        own = self._base.cost_class()
        return "forward-only" if own == "data-free" else own

    def require_objective(self, objective: str) -> None:
        self._base.require_objective(objective)

    def scores(self, group: UnitGroup) -> bool:
        return self._base.scores(group)

    def rank(self, context: SearchContext) -> Ranking:
        run = _Run(context, self.config, self._base)
        for step in track(context.progress, range(run.state.step, self.config.steps), "pruning"):
            try:
                run.advance()
            except NumericsError as error:
                raise NumericsError(
                    f"in step {step + 1} of {self.config.steps}, with "
                    f"{100 * run.mean_share:.0f}% of the units gated: {error}"
                ) from None
        run.empty()
        return Ranking(damage=run.state.gone, order="damage", extra=run.facts)


@dataclass
class _State:
    """What a run must know to go on.

    Args:
        step: steps made.
        gone: group -> when each unit left, (units,); step i lasts from i to i + 1.
        scores: group -> damage per cost as measured last, (units,).
        shares: layer -> part of its units that is to be gone by now.
        cosines: layer -> mean cosine as measured last.
        dense: the same of the dense model.
    """

    step: int
    gone: dict[str, FloatArray]
    scores: dict[str, FloatArray]
    shares: dict[str, float]
    cosines: dict[str, float]
    dense: dict[str, float]


class _Run:
    def __init__(self, context: SearchContext, config: AdaptConfig, base: Method) -> None:
        self._context, self._config, self._base = context, config, base
        structure = context.structure
        names = {group.name for group in structure.finest_groups}
        self._fine: dict[str, list[UnitGroup]] = {}
        self._coarse: dict[str, list[UnitGroup]] = {}  # by kind
        self._layer: dict[str, str] = {}
        for group in structure.groups:
            layer = structure.places_by_path[group.place].layer_path
            self._layer[group.name] = layer
            self._fine.setdefault(layer, [])
            if group.name in names:
                self._fine[layer].append(group)
            else:
                self._coarse.setdefault(group.kind, []).append(group)
        self._params = {
            group.name: float(max(1, unit_cost(structure, group).params))
            for group in structure.groups
        }
        self._store = RunState(context, "adapt", {"method": "adapt", **config.to_dict()})
        self.state = self._load() or _State(
            step=0,
            gone={group.name: np.full(group.num_units, np.inf) for group in structure.groups},
            scores={},
            shares=dict.fromkeys(self._fine, 0.0),
            cosines={},
            dense={},
        )

    @property
    def mean_share(self) -> float:
        """Mean over layers of the part that is gone."""
        return float(np.mean(list(self.state.shares.values())))

    @property
    def facts(self) -> dict[str, object]:
        """What the path's header keeps."""
        return {"layer_cosines": {name: round(v, 6) for name, v in self.state.dense.items()}}

    def advance(self) -> None:
        """One step: measure, let the layers' shares grow, remove."""
        state, config = self.state, self._config
        if state.step == 0 or (config.rescoring and self.mean_share < config.until):
            self._measure()
        state.shares = grown(
            state.shares,
            layer_importance(state.cosines),
            steps=config.steps,
            amplitude=config.amplitude,
            cap=config.cap,
        )
        self._remove(state.shares)
        state.step += 1
        self._save()

    def empty(self) -> None:
        """Let everything that is left go by the last scores."""
        for layer in self._fine:
            self._leave(self._alive(self._fine[layer]))
        for groups in self._coarse.values():
            self._leave(self._alive(groups))

    def _wanted_anew(self) -> Wanted:
        """What a pass over the gated model is to form."""
        if self._base.cost_class() == "data-free":
            return Wanted(False, False, False, influence=True)
        return replace(self._base.wanted(), moments=self._base.reads_moments, influence=True)

    def _measure(self) -> None:
        context, state = self._context, self.state
        samples = context.samples
        if 0 < self._config.step_windows < len(samples):
            samples = samples.rows(0, self._config.step_windows)
        if state.step == 0:  # the calibration pass has been over the dense model already
            samples, sums = context.samples, context.statistics
        else:
            keep = {
                group.name: np.isinf(state.gone[group.name])
                for groups in self._fine.values()
                for group in groups
            }
            sums = gated_sums(context, samples, self._wanted_anew(), keep)
        state.cosines = layer_cosines(sums, self._fine)
        state.dense = state.dense or state.cosines
        ranking = self._base.rank(
            replace(context, statistics=sums, samples=samples, state_folder=None, progress=None)
        )
        for name, damage in ranking.damage.items():
            values = np.asarray(damage, dtype=np.float64)
            if np.isnan(values).any():
                raise NumericsError(
                    f"unit {int(np.isnan(values).argmax())} of '{name}' has the score NaN; load "
                    "the model in float32 or bfloat16"
                )
            per = 1.0 if ranking.order == "damage" else self._params[name]
            state.scores[name] = values / per

    def _remove(self, shares: Mapping[str, float]) -> None:
        """Take out of every layer what its share asks for."""
        for layer, groups in self._fine.items():
            whole = sum(self._params[group.name] * group.num_units for group in groups)
            alive = self._alive(groups)
            left = sum(bundle.cost for bundle in alive)
            self._leave(within_share(alive, shares[layer] * whole - (whole - left)))
        for groups in self._coarse.values():
            chosen = []
            for group in groups:
                alive = self._alive([group])
                whole = self._params[group.name] * group.num_units
                left = sum(bundle.cost for bundle in alive)
                room = shares[self._layer[group.name]] * whole - (whole - left)
                chosen += within_share(alive, room)
            self._leave(chosen)

    def _alive(self, groups: list[UnitGroup]) -> list[Bundle]:
        state = self.state
        return [
            bundle
            for group in groups
            for bundle in alive_bundles(
                group, state.scores[group.name], state.gone[group.name], self._params[group.name]
            )
        ]

    def _leave(self, bundles: list[Bundle]) -> None:
        """Mark bundles as gone, evenly spread over the step that is made now."""
        ordered = sorted(bundles, key=lambda bundle: bundle.score)
        for turn, bundle in enumerate(ordered, start=1):
            when = self.state.step + turn / len(ordered)
            self.state.gone[bundle.group.name][bundle.units] = when

    def _save(self) -> None:
        state = self.state
        tables = {"gone": state.gone, "scores": state.scores}
        tensors = {
            f"{table}/{name}": torch.from_numpy(values.copy())
            for table, groups in tables.items()
            for name, values in groups.items()
        }
        facts = {
            "step": state.step,
            "shares": state.shares,
            "cosines": state.cosines,
            "dense": state.dense,
        }
        self._store.save(tensors, facts)

    def _load(self) -> _State | None:
        found = self._store.load()
        if found is None:
            return None
        tables: dict[str, dict[str, FloatArray]] = {"gone": {}, "scores": {}}
        for key, value in found[0].items():
            table, _, name = key.partition("/")
            tables[table][name] = value.numpy()
        facts = found[1]
        return _State(
            step=facts["step"],
            shares=facts["shares"],
            cosines=facts["cosines"],
            dense=facts["dense"],
            **tables,
        )
