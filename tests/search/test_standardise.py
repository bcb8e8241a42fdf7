"""Scores on a scale of each group's own: what stays, what changes, and where that can be chosen."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from prunepath.errors import RequestError
from prunepath.methods.method import METHODS, Ranking, SearchContext, total_order
from prunepath.methods.residual import Residual, ResidualConfig
from prunepath.methods.standardise import standardised
from tests.conformance.families import dense, random_tokens
from tests.search.problems import context_of

PLAIN = ("fisher", "taylor", "magnitude", "gblm")


@cache
def context() -> SearchContext:
    return context_of(dense("llama-gqa-tied-biases"), random_tokens(3, 20))


def ranked(method: str, **settings: Any) -> Ranking:
    chosen = METHODS[method]
    return chosen(chosen.Config.from_dict(settings)).rank(context())


@pytest.mark.parametrize("method", [*PLAIN, "optin"])
def test_zscores_have_mean_0_and_deviation_1_and_keep_the_order_of_a_group(method: str) -> None:
    settings = {"probes": 4} if method == "optin" else {}
    plain = ranked(method, **settings)
    found = ranked(method, standardise="zscore", **settings)
    assert found.order == found.extra["order"] == "damage"
    flat = np.concatenate([found.damage[name] for name in found.damage])
    assert flat.min() == 0
    offsets = set()
    for group in context().structure.groups:
        values = np.asarray(plain.damage[group.name], dtype=np.float32).astype(np.float64)
        centred = values - values.mean()
        expected = centred / (centred.std() or 1)
        difference = found.damage[group.name] - expected
        assert np.ptp(difference) < 1e-9
        offsets.add(round(float(difference[0]), 9))
    assert len(offsets) == 1, "all groups are counted from one least"


@pytest.mark.parametrize("method", PLAIN)
def test_relative_scores_are_parts_of_a_group(method: str) -> None:
    plain, found = ranked(method), ranked(method, standardise="relative")
    assert found.order == "damage per cost"
    for name, values in found.damage.items():
        assert values.sum() == pytest.approx(1)
        np.testing.assert_allclose(values, plain.damage[name] / plain.damage[name].sum(), rtol=1e-6)


def test_groups_without_differences_stand_in_the_middle() -> None:
    even = Ranking(damage={"even": np.full(3, 7.0), "zero": np.zeros(2)})
    assert all((v == 0).all() for v in standardised(even, "zscore").damage.values())
    relative = standardised(even, "relative").damage
    assert relative["zero"].tolist() == [0, 0]
    assert relative["even"] == pytest.approx(1 / 3)


def test_residual_standardises_by_the_same_numbers() -> None:
    """Of whole units; FLAP's single columns are squared and averaged first."""
    residual = METHODS["residual"](ResidualConfig(repair="none", rounds=1))
    assert isinstance(residual, Residual)
    groups = tuple(group for group in context().structure.groups if residual.scores(group))
    bare = replace(context(), structure=replace(context().structure, groups=groups))
    plain = residual.rank(bare)
    own = METHODS["residual"](ResidualConfig(repair="none", rounds=1, standardise="zscore")).rank(
        bare
    )
    generic = standardised(plain, "zscore")
    for name, values in own.damage.items():
        np.testing.assert_allclose(values, generic.damage[name], rtol=1e-5, atol=1e-6)


def test_unknown_words_are_refused() -> None:
    for method in (*PLAIN, "optin"):
        with pytest.raises(RequestError, match="unknown standardise 'rank'; use one of none, rel"):
            ranked(method, standardise="rank")


def test_the_order_is_total() -> None:
    order = total_order(context().structure, ranked("magnitude", standardise="zscore"))
    ranks = np.concatenate(list(order["rank"].values()))
    assert np.array_equal(np.sort(ranks), np.arange(len(ranks)))
