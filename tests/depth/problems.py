"""What a method of depth sees of tiny models of several families."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch

from prunepath.data.samples import Samples
from prunepath.methods.method import METHODS, Method, SearchContext
from prunepath.methods.scope import scored_part
from prunepath.path import SolutionPath
from prunepath.statistics.collect import Wanted, recording
from prunepath.statistics.sums import Statistics
from prunepath.structure.discover import discover
from prunepath.structure.gates import frozen
from tests.conformance.paths import PROVENANCE
from tests.optin.scenes import context as scene_context
from tests.zoo.build import Case

INFLUENCE = Wanted(
    gradients=False, moments=False, output_gradients=False, influence=True, blocks=True
)


def measured(case: Case, batch: dict[str, Any], wanted: Wanted = INFLUENCE) -> Statistics:
    """Sums of one forward pass."""
    model = case.build()
    structure = discover(model, probe=lambda length: model(**case.inputs(1, length)))
    sums = Statistics()
    with torch.no_grad(), frozen(model), recording(model, structure, wanted, sums) as recorder:
        recorder.begin(Samples(inputs=batch))
        model(**batch)
    return sums


@cache
def context(name: str, double: bool = False) -> SearchContext:
    """A model of `tests.optin.scenes` with the statistics of depth; nothing may be changed."""
    found = scene_context(name, double)
    sums = Statistics()
    with (
        torch.no_grad(),
        frozen(found.model),
        recording(found.model, found.structure, INFLUENCE, sums) as recorder,
    ):
        for batch in found.samples.batches(2):
            recorder.begin(batch)
            found.task.output(found.model, batch.inputs)
    return replace(found, statistics=sums)


def made(name: str, **settings: Any) -> Method:
    """A method with settings."""
    chosen = METHODS[name]
    return chosen(chosen.Config.from_dict(settings))


def scored(found: SearchContext, method: Method) -> SearchContext:
    """What `search` shows the method."""
    return replace(found, structure=scored_part(found.structure, method))


def path_of(found: SearchContext, method: Method) -> SolutionPath:
    """The path of a method, as `search` makes it."""
    from prunepath.methods.method import total_order

    own = scored(found, method)
    ranking = method.rank(own)
    return SolutionPath(
        structure=own.structure,
        **total_order(own.structure, ranking),
        provenance=replace(PROVENANCE, method=method.name, extra=dict(ranking.extra)),
    )
