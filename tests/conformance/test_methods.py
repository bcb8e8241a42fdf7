"""Every method x every family: a total order over all units, repeatable and storable."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from prunepath.methods import method as registry
from prunepath.methods.method import SearchContext, total_order
from prunepath.methods.scope import scored_part
from prunepath.path import SolutionPath
from tests.conformance.families import FAMILIES, dense, random_tokens
from tests.conformance.methods import DEPTH, METHODS
from tests.conformance.paths import PROVENANCE
from tests.search.problems import context_of

every_case = pytest.mark.parametrize(
    ("name", "family"), [(name, family) for name in METHODS for family in FAMILIES]
)


@cache
def context(family: str) -> SearchContext:
    return context_of(dense(family), random_tokens(3, 20))


@cache
def path(name: str, family: str, again: bool = False) -> SolutionPath:
    method, settings = METHODS[name]
    chosen = registry.METHODS[method]
    scorer = chosen(chosen.Config.from_dict(settings))
    found = context(family)
    found = replace(found, structure=scored_part(found.structure, scorer))
    ranking = scorer.rank(found)
    return SolutionPath(
        structure=found.structure,
        **total_order(found.structure, ranking),
        provenance=replace(PROVENANCE, method=method, method_config=settings, extra=ranking.extra),
    )


def test_the_table_has_every_registered_method() -> None:
    assert {method for method, _ in METHODS.values()} == set(registry.METHODS)


@every_case
def test_all_units_stand_in_one_order_without_ties(name: str, family: str) -> None:
    found = path(name, family)
    ranks = np.concatenate([found.rank[group.name] for group in found.structure.groups])
    assert np.array_equal(np.sort(ranks), np.arange(len(ranks)))
    assert len(found.removal_order) == len(ranks)


@every_case
def test_damages_and_times_are_finite_and_agree_with_the_order(name: str, family: str) -> None:
    found = path(name, family)
    names = [group.name for group in found.structure.groups]
    for group in found.structure.groups:
        assert found.damage[group.name].shape == (group.num_units,)
        assert np.isfinite(found.damage[group.name]).all()
        assert np.isfinite(found.entry_time[group.name]).all()
        assert (found.damage[group.name] >= 0).all()
        assert (np.diff(found.damage[group.name][found.order_in(group)]) >= 0).all()
    times = np.concatenate([found.entry_time[group] for group in names])
    ranks = np.concatenate([found.rank[group] for group in names])
    assert (np.diff(times[np.argsort(ranks)]) >= 0).all()


@every_case
def test_the_same_seed_gives_the_same_path(name: str, family: str) -> None:
    first, second = path(name, family), path(name, family, again=True)
    assert first is not second
    for group in first.structure.groups:
        for table in ("damage", "entry_time", "rank"):
            np.testing.assert_array_equal(
                getattr(first, table)[group.name], getattr(second, table)[group.name]
            )
    assert first.provenance == second.provenance


@pytest.mark.parametrize(
    "name", [name for name, (method, _) in METHODS.items() if method not in DEPTH]
)
def test_sub_layers_change_nothing_for_the_units_inside(name: str) -> None:
    family = "llama-gqa-tied-biases"
    found = path(name, family)
    groups = tuple(group for group in found.structure.groups if not group.is_sublayer)
    bare = replace(context(family), structure=replace(found.structure, groups=groups))
    method, settings = METHODS[name]
    chosen = registry.METHODS[method]
    ranking = chosen(chosen.Config.from_dict(settings)).rank(bare)
    alone = total_order(bare.structure, ranking)
    for group in groups:
        np.testing.assert_array_equal(
            found.damage[group.name], alone["damage"][group.name].astype(np.float32)
        )
        assert np.array_equal(found.order_in(group), np.argsort(-alone["rank"][group.name]))


@every_case
def test_a_path_reads_back_as_it_was_written(name: str, family: str, tmp_path: Path) -> None:
    found = path(name, family)
    found.save_pretrained(tmp_path)
    again = SolutionPath.from_pretrained(tmp_path)
    for group in found.structure.groups:
        for table in ("damage", "entry_time", "rank"):
            np.testing.assert_array_equal(
                getattr(found, table)[group.name], getattr(again, table)[group.name]
            )
    assert again.provenance == found.provenance


@every_case
def test_a_search_leaves_the_model_as_it_was(name: str, family: str) -> None:
    before = {key: value.clone() for key, value in dense(family).state_dict().items()}
    path.__wrapped__(name, family)
    for key, value in dense(family).state_dict().items():
        assert torch.equal(value, before[key])
    assert all(parameter.grad is None for parameter in dense(family).parameters())
