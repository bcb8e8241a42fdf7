"""What a search method is: statistics in, damage per unit out; no method names an architecture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from prunepath.errors import NumericsError, RequestError
from prunepath.registry import Registry
from prunepath.settings import Settings
from prunepath.statistics.collect import Wanted
from prunepath.structure.cost import unit_cost
from prunepath.structure.units import Structure, UnitGroup

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from prunepath.data.samples import Samples
    from prunepath.progress import Progress
    from prunepath.statistics.sums import Statistics
    from prunepath.tasks.task import Task

__all__ = [
    "METHODS",
    "Companion",
    "CostClass",
    "Method",
    "MethodConfig",
    "Ranking",
    "SearchContext",
    "total_order",
]

FloatArray = NDArray[np.float64]
CostClass = Literal["data-free", "forward-only", "gradients", "search"]


@dataclass(frozen=True, kw_only=True)
class MethodConfig(Settings):
    """Settings of a method; subclasses add fields with `metadata={"help": ...}`."""

    owner: ClassVar[str] = "this method"


@dataclass(frozen=True, kw_only=True)
class SearchContext:
    """Everything a method may look at.

    Args:
        model: the dense model, frozen; to be read, never written.
        structure: its structure.
        statistics: sums of the calibration pass.
        task: what the model is used for.
        samples: calibration samples, for methods that run the model themselves.
        objective: `"kl"` or `"task"`.
        seed: seed of every random draw.
        state_folder: where a long method may keep its state to resume from; None: nowhere.
        progress: who listens.
    """

    model: nn.Module
    structure: Structure
    statistics: Statistics
    task: Task
    samples: Samples
    objective: str = "kl"
    seed: int = 0
    state_folder: Path | None = None
    progress: Progress | None = None

    def weight(self, name: str) -> Tensor:
        """A parameter by its full name, detached."""
        return self.model.get_parameter(name).detach()

    def generator(self, offset: int = 0) -> torch.Generator:
        """A generator seeded from the search's seed and an offset."""
        import torch

        return torch.Generator().manual_seed(self.seed * 1_000_003 + offset)


class Companion(Protocol):
    """What a method keeps beside its path, in a file of its own."""

    def save(self, file: Path) -> None:
        """Write it, atomically."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """What a method finds out.

    Args:
        damage: group -> estimated loss increase (per loss row, nats per token for language
            models, or the method's own unit) when a unit is removed at its place in the order,
            (units,).
        entry_time: group -> selection time, small matters most, (units,); None where the method
            has no times of its own and the order by damage per parameter stands for them.
        extra: anything worth keeping in the path's header; JSON-ready.
        companions: file name -> what is written beside the path under that name.
        order: what orders units of different costs where there are no times: `"damage per cost"`,
            or `"damage"` for methods whose numbers are an order already (z-scores, parts of a
            group). It is kept in `extra`: allocation must not divide by costs then, either.
        together: groups of one unit each that leave in one step where several of them may leave at
            all (the sub-layers of a layer); kept in `extra`, for allocation.
    """

    damage: Mapping[str, FloatArray]
    entry_time: Mapping[str, FloatArray] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    companions: Mapping[str, Companion] = field(default_factory=dict)
    order: str = "damage per cost"
    together: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        said: dict[str, Any] = {}
        if self.order != "damage per cost":
            said["order"] = self.order
        if self.together:
            said["together"] = [list(names) for names in self.together]
        if said:
            object.__setattr__(self, "extra", {**self.extra, **said})


class Method:
    """A search method; subclass, set the class attributes and implement `rank`."""

    name: ClassVar[str]
    summary: ClassVar[str]
    scope: ClassVar[str] = "all units"
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    objectives: ClassVar[tuple[str, ...]] = ("kl", "task")
    """Objectives it can be given."""
    after_scoring: ClassVar[tuple[str, ...]] = ()
    """Settings that only say how stored scores become damages: what `rerank` may be given anew."""
    reads_moments: ClassVar[bool] = True
    """Whether its order rests on second moments; a pass that only orders leaves them out if not."""

    def __init__(self, config: MethodConfig | None = None) -> None:
        self.config: Any = config if config is not None else self.Config()

    def wanted(self) -> Wanted:
        """Statistics it needs. Second moments are always formed: the refit wants them."""
        return Wanted(gradients=False, moments=True, output_gradients=False)

    def objective(self) -> str:
        """The objective it is meant for, when the user names none."""
        return "kl"

    def cost_class(self) -> CostClass:
        """What its order takes: no data, forward passes, gradients, or runs of its own."""
        return "gradients" if self.wanted().backward else "forward-only"

    def require_objective(self, objective: str) -> None:
        """Refuse an objective the method has nothing to do with.

        Raises:
            RequestError: naming those it has.
        """
        if objective not in self.objectives:
            raise RequestError(
                f"the method '{self.name}' compares with the dense model and reads no labels, and "
                f"the objective '{objective}' was asked for; leave it out, or give "
                f"'{self.objectives[0]}'"
            )

    def scores(self, group: UnitGroup) -> bool:
        """Whether it can score the units of a group; `scope` says in words which it can."""
        return True

    def scored_groups(self, structure: Structure) -> tuple[UnitGroup, ...]:
        """The groups of a model it scores; for a choice that a group alone does not tell."""
        return tuple(group for group in structure.groups if self.scores(group))

    def rank(self, context: SearchContext) -> Ranking:
        """Score all units of the groups it scores; the context's structure has no others."""
        raise NotImplementedError

    def rerank(self, structure: Structure, folder: Path, extra: Mapping[str, Any]) -> Ranking:
        """Damages from the scores that an earlier search of this method stored.

        Args:
            structure: that of the path.
            folder: where the path lies.
            extra: what the search kept in the path's header.

        Raises:
            RequestError: the method stores no scores.
            PathFileError: they are missing, damaged, or of another search.
        """
        raise RequestError(
            f"this path was searched with '{self.name}', which keeps no scores to weigh anew; "
            "search again with other settings, or with --method optin"
        )


METHODS: Registry[type[Method]] = Registry("method", "prunepath.methods")
for _name, _target in {
    "spp": "prunepath.methods.spp:Spp",
    "fisher": "prunepath.methods.baselines:DiagonalFisher",
    "magnitude": "prunepath.methods.baselines:Magnitude",
    "taylor": "prunepath.methods.baselines:Taylor",
    "random": "prunepath.methods.baselines:Random",
    "optin": "prunepath.methods.optin.optin:Optin",
    "residual": "prunepath.methods.residual:Residual",
    "gblm": "prunepath.methods.gblm:Gblm",
    "pq": "prunepath.methods.pq:Pq",
    "block-influence": "prunepath.methods.depth.influence:BlockInfluence",
    "finercut": "prunepath.methods.depth.finercut:FinerCut",
    "adapt": "prunepath.methods.adapt:Adapt",
}.items():
    METHODS.register(_name, _target)


_TINY = float(np.finfo(np.float32).tiny)
"""The path stores times in float32, where a reciprocal must not be infinite."""


def total_order(structure: Structure, ranking: Ranking) -> dict[str, Any]:
    """Damage, entry times and ranks of all units, with every tie broken the same way each time.

    Without times of its own a method's units enter by damage per parameter, or by damage where the
    ranking says so: the reciprocal is the entry time, so that small still matters most.

    Returns:
        `{"damage", "entry_time", "rank"}`, each group name -> (units,).

    Raises:
        NumericsError: a score is NaN.
    """
    names = [group.name for group in structure.groups]
    damage: dict[str, FloatArray] = {}
    times: dict[str, FloatArray] = {}
    for group in structure.groups:
        values = np.asarray(ranking.damage[group.name], dtype=np.float64)
        if np.isnan(values).any():
            raise NumericsError(
                f"unit {int(np.isnan(values).argmax())} of '{group.name}' has the score NaN; the "
                "statistics hold NaN, so check weights and calibration data"
            )
        damage[group.name] = values
        if ranking.entry_time is not None:
            times[group.name] = np.asarray(ranking.entry_time[group.name], dtype=np.float64)
        elif ranking.order == "damage":
            times[group.name] = 1.0 / (1.0 + values)
        else:
            density = values / unit_cost(structure, group).params
            times[group.name] = 1.0 / np.maximum(density, _TINY)
    flat_time = np.concatenate([times[name] for name in names])
    flat_damage = np.concatenate([damage[name] for name in names])
    place = np.arange(len(flat_time))
    order = np.lexsort((place, -flat_damage, flat_time))  # most important first
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = place
    splits = np.cumsum([group.num_units for group in structure.groups])[:-1]
    rank = dict(zip(names, np.split(ranks, splits), strict=True))
    return {"damage": damage, "entry_time": times, "rank": rank}
