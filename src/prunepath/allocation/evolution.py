"""The rule `evolution`: sizes of all sub-layers by mutation and tournament, measured on the model.

After Tyr-the-Pruner (arXiv 2503.09657) and EvoPress: a candidate says how far every sub-layer is
cut. A mutation gives some sub-layers a level back and cuts others a level deeper, so that the
budget holds. Most candidates are told apart by a few samples; the survivors meet more of them, and
the last ones the parent. A level begins as an eighth of a sub-layer and is halved from iteration to
iteration.

Differences. The search starts from what the order of the path would keep, where the paper starts
from equal levels, and units within a sub-layer leave in the path's order. Sub-layers cost
differently, so exchanges are of equal savings and are repaired to the budget by exact counts, and
attention and FFN may be exchanged for each other. Candidates are measured unrepaired; the paper
stores every level of every linear map with its least-squares refit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from prunepath.allocation.ladders import Counts, Ladders
from prunepath.allocation.rules import EvolutionSettings, Stage
from prunepath.progress import Progress, track

__all__ = ["Evolved", "evolve", "mutated"]

_SWAPS = 4
_TRIES = 20  # mutations of small models often meet again

Fitness = Callable[[Counts, int], float]
"""Distance of a candidate on so many samples, 0 for all; smaller is better."""


@dataclass(frozen=True, kw_only=True)
class Evolved:
    """What a search found.

    Args:
        counts: steps of every ladder.
        before: distance of the start on the samples of the last round.
        after: of what was found; never more.
        candidates: how many different ones were measured, the start included.
    """

    counts: Counts
    before: float
    after: float
    candidates: int


def evolve(
    ladders: Ladders,
    start: Counts,
    required: float,
    fitness: Fitness,
    settings: EvolutionSettings,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evolved:
    """The fittest candidate of all generations.

    Args:
        ladders: all of them.
        start: saves at least what is required.
        required: what every candidate saves, at least.
        fitness: distance of a candidate.
        settings: sizes of the search.
        seed: of every random draw; the same one gives the same result.
        progress: who listens.

    Returns:
        The candidate and its distance; never one that is worse than the start on the samples of the
        last round.

    Example:
        >>> found = evolve(ladders, start, 1e6, fitness, EvolutionSettings())  # doctest: +SKIP
        >>> found.after <= found.before  # doctest: +SKIP
        True
    """
    rng = np.random.default_rng(seed)
    *early, last = settings.rounds
    known: dict[tuple[Counts, int], float] = {}

    def measured(counts: Counts, samples: int) -> float:
        key = (counts, samples)
        if key not in known:
            known[key] = fitness(counts, samples)
        return known[key]

    before = measured(start, last.samples)
    parent = start
    steps = [settings.step / 2**index for index in range(settings.iterations)]
    rounds = [step for step in steps for _ in range(settings.generations)]
    for step in track(progress, rounds, "exchanging sizes", len(rounds)):
        brood = _brood(ladders, parent, required, step, settings.offspring, rng, known)
        for stage in early:
            brood = _fittest(brood, stage, measured)
        parent = min([parent, *brood], key=lambda counts: measured(counts, last.samples))
    return Evolved(
        counts=parent,
        before=before,
        after=known[parent, last.samples],
        candidates=len({counts for counts, _ in known}),
    )


def mutated(
    ladders: Ladders, counts: Counts, required: float, step: float, rng: np.random.Generator
) -> Counts:
    """Counts with one to four exchanges of a level, which save at least what is required.

    Args:
        ladders: all of them.
        counts: what is changed.
        required: what must be saved.
        step: part of a sub-layer that a level is.
        rng: of all choices.

    Returns:
        New counts; now and then the same ones.
    """
    new = list(counts)
    for _ in range(min(rng.integers(1, _SWAPS + 1), rng.integers(1, _SWAPS + 1))):
        relieved = [index for index, count in enumerate(new) if count]
        if not relieved:
            break
        here = int(rng.choice(relieved))
        saved = ladders.saved(here, new[here])
        new[here] = min(new[here] - 1, ladders.nearest(here, saved - step * ladders.most(here)))
        freed = saved - ladders.saved(here, new[here])
        others = [i for i in range(len(new)) if i != here and new[i] < ladders.height(i)]
        if not others:
            continue
        there = int(rng.choice(others))
        new[there] = ladders.nearest(there, ladders.saved(there, new[there]) + freed)
    order = [int(index) for index in rng.permutation(len(new))]
    for index in order:  # what a full sub-layer could not take
        missing = required - ladders.total(new)
        if missing <= 0:
            break
        new[index] = ladders.count_for(index, ladders.saved(index, new[index]) + missing)
    return ladders.give_back(new, required, order[::-1])


def _brood(
    ladders: Ladders,
    parent: Counts,
    required: float,
    step: float,
    number: int,
    rng: np.random.Generator,
    known: dict[tuple[Counts, int], float],
) -> list[Counts]:
    """So many different mutations of the parent that were not measured before, or as there are."""
    met = {counts for counts, _ in known}
    brood: dict[Counts, None] = {}
    for _ in range(_TRIES * number):
        if len(brood) == number:
            break
        child = mutated(ladders, parent, required, step, rng)
        if child not in met:
            brood[child] = None
    return list(brood)


def _fittest(brood: Sequence[Counts], stage: Stage, measured: Fitness) -> list[Counts]:
    ordered = sorted(brood, key=lambda counts: measured(counts, stage.samples))
    return ordered[: stage.survivors]
