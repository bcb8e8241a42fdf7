"""The PQ index, the sizes it suggests, and the two reductions of first-order Taylor."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from prunepath.errors import RequestError
from prunepath.methods.baselines import Taylor, TaylorConfig, unit_norms
from prunepath.methods.method import SearchContext, total_order
from prunepath.methods.pq import Pq, PqConfig, pq_index, share_to_remove
from prunepath.structure.cost import cost_of
from prunepath.structure.selection import Selection
from tests.conformance.families import random_tokens, tiny
from tests.search.problems import context_of


@cache
def searched() -> SearchContext:
    """A tiny Llama whose channels are of very different sizes."""
    model = tiny("Llama", intermediate_size=400)
    generator = torch.Generator().manual_seed(0)
    for layer in model.model.layers:
        sizes = torch.randn(400, generator=generator).mul(1.5).exp()
        with torch.no_grad():
            layer.mlp.down_proj.weight.mul_(sizes)
            layer.mlp.up_proj.weight.mul_(sizes[:, None])
    return context_of(model, random_tokens(3, 20))


def test_the_index_is_zero_for_equals_and_large_for_few() -> None:
    for p, q in ((0.5, 1.0), (1.0, 2.0)):
        assert pq_index(np.full(9, 1e-30), p, q) == pytest.approx(0, abs=1e-12)
        one = np.zeros(9)
        one[3] = 7.0
        assert pq_index(one, p, q) == pytest.approx(1 - 9 ** (1 / q - 1 / p))
        values = np.array([1.0, 2.0, 3.0, 0.5])
        by_hand = 1 - 4 ** (1 / q - 1 / p) * (values**p).sum() ** (1 / p) / (
            (values**q).sum() ** (1 / q)
        )
        assert pq_index(values, p, q) == pytest.approx(by_hand)
        assert pq_index(1e6 * values, p, q) == pytest.approx(by_hand), "scale does not matter"
    assert pq_index(np.zeros(4), 0.5, 1.0) == 0


def test_a_share_is_what_the_bound_leaves() -> None:
    few = np.array([1.0] * 3 + [0.0] * 9)
    # Nine of twelve hold nothing: the bound says exactly that.
    assert share_to_remove(few, PqConfig()) == pytest.approx(9 / 12)
    assert share_to_remove(few, PqConfig(beta=0.5)) == 0.5
    assert share_to_remove(few, PqConfig(gamma=0.5)) == pytest.approx(4.5 / 12)
    assert share_to_remove(few, PqConfig(eta=1.0, beta=0.99)) == pytest.approx(1 - 3 / 12 / 4)
    assert share_to_remove(np.ones(12), PqConfig()) == pytest.approx(0, abs=1e-12)


def test_groups_run_down_to_their_own_sizes_in_proportion() -> None:
    context = searched()
    ranking = Pq().rank(context)
    keep = {}
    for group in context.structure.groups:
        norms, way = unit_norms(context, group), ranking.damage[group.name]
        count = int(share_to_remove(norms, PqConfig()) * group.lane_width)
        lanes = way.reshape(group.num_lanes, -1)
        assert ((lanes <= 1).sum(1) == count).all()
        for own, size in zip(lanes, norms.reshape(lanes.shape), strict=True):
            assert np.array_equal(np.argsort(own), np.argsort(size)), "small norms leave first"
            np.testing.assert_allclose(
                np.sort(own)[:count], np.arange(1, count + 1) / max(1, count)
            )
        if group in context.structure.finest_groups:
            keep[group.name] = way > 1
    saved = (
        cost_of(context.structure, Selection({})).params
        - cost_of(context.structure, Selection(keep)).params
    )
    assert ranking.extra == {
        "own_ratio": saved / context.structure.block_params,
        "order": "damage",
    }
    assert saved > 0


def test_half_of_the_way_is_half_of_what_each_group_may_lose() -> None:
    context = searched()
    ranking = Pq().rank(context)
    rank = total_order(context.structure, ranking)["rank"]
    for group in context.structure.of_kind("ffn_channel"):
        way = ranking.damage[group.name]
        order = np.argsort(-rank[group.name])
        assert (np.diff(way[order]) >= 0).all()
    gone = {
        group.name: (ranking.damage[group.name] <= 0.5).sum()
        / max(1, (ranking.damage[group.name] <= 1).sum())
        for group in context.structure.of_kind("ffn_channel")
    }
    assert all(0.4 <= part <= 0.6 for part in gone.values())


def test_a_sum_cancels_where_samples_disagree() -> None:
    context = searched()
    by_sample = Taylor().rank(context).damage
    whole = Taylor(TaylorConfig(reduction="sum")).rank(context).damage
    for group in context.structure.groups:
        assert (whole[group.name] <= by_sample[group.name] * (1 + 1e-5) + 1e-9).all()
        sums = context.statistics.gradient[group.name].double().abs()
        np.testing.assert_allclose(whole[group.name], sums / context.statistics.tokens, rtol=1e-12)
    assert any(
        not np.array_equal(np.argsort(one), np.argsort(other))
        for one, other in zip(by_sample.values(), whole.values(), strict=True)
    )


@pytest.mark.parametrize(
    ("config", "made", "match"),
    [
        ({"reduction": "mean"}, TaylorConfig, "unknown reduction 'mean' .*; use sample or sum"),
        ({"p": 1.0}, PqConfig, "p is 1.0 and q is 1.0; they must be 0 < p < q"),
        ({"eta": -0.1}, PqConfig, "eta is -0.1; it must be 0 or above"),
        ({"gamma": 0.0}, PqConfig, "gamma is 0.0; it must be above 0"),
        ({"beta": 1.0}, PqConfig, "beta is 1.0; it must be between 0 and 1"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(
    config: dict[str, Any], made: Any, match: str
) -> None:
    with pytest.raises(RequestError, match=match):
        made(**config)
