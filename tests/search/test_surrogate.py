"""Paths from statistics alone, on tiny models: finite, repeatable, exact where that is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from prunepath.errors import NumericsError, RequestError
from prunepath.methods.method import SearchContext, total_order
from prunepath.methods.spp import Spp, SppConfig
from prunepath.methods.surrogate import curvature_block, group_damage
from prunepath.statistics.sums import Statistics
from prunepath.structure.gates import owner_index
from tests.search.problems import context_of

WAYS = {
    "refit": {},
    "fisher": {"curvature": "fisher"},
    "flow": {"curvature": "fisher", "solver": "flow"},
}
every_way = pytest.mark.parametrize("settings", WAYS.values(), ids=WAYS)


@pytest.fixture
def context(tiny_llama: Callable[..., Any]) -> SearchContext:
    ids = torch.randint(0, 300, (4, 24), generator=torch.Generator().manual_seed(0))
    return context_of(tiny_llama(), ids)


def weight_of(context: SearchContext, consumer: str) -> torch.Tensor | None:
    return context.weight(f"{consumer}.weight") if consumer else None


@every_way
def test_every_unit_of_every_group_gets_a_finite_positive_damage(
    context: SearchContext, settings: dict[str, Any]
) -> None:
    damage = Spp(SppConfig(**settings)).rank(context).damage
    assert set(damage) == {group.name for group in context.structure.groups}
    for group in context.structure.groups:
        assert damage[group.name].shape == (group.num_units,)
        assert np.isfinite(damage[group.name]).all()
        assert (damage[group.name] > 0).all()


@every_way
def test_the_same_statistics_give_the_same_damage_bit_for_bit(
    context: SearchContext, settings: dict[str, Any]
) -> None:
    first, second = (Spp(SppConfig(**settings)).rank(context).damage for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@every_way
def test_the_path_keeps_the_order_of_every_lane(
    context: SearchContext, settings: dict[str, Any]
) -> None:
    ranking = Spp(SppConfig(**settings)).rank(context)
    rank = total_order(context.structure, ranking)["rank"]
    for group in context.structure.groups:
        lanes = ranking.damage[group.name].reshape(group.num_lanes, -1)
        ranks = rank[group.name].reshape(group.num_lanes, -1)
        for values, places in zip(lanes, ranks, strict=True):
            assert len(set(values)) == len(values)
            assert np.array_equal(np.argsort(values), np.argsort(-places))


def test_the_kronecker_block_is_the_sum_over_all_columns_of_two_units(
    context: SearchContext,
) -> None:
    for group in context.structure.groups:
        if not group.consumer:
            continue
        weight = context.weight(f"{group.consumer}.weight").double()
        moment = context.statistics.mean("moments", group.consumer)
        gamma = context.statistics.mean("output_gradients", group.consumer)
        owner = owner_index(group)
        block = curvature_block(group, context.statistics, weight)
        last = group.num_units - 1
        for j, k in ((0, 0), (0, 1), (1, last)) if last else ((0, 0),):
            a, b = owner == j, owner == k
            expected = (moment[a][:, b] * (weight[:, a].T @ gamma @ weight[:, b])).sum()
            np.testing.assert_allclose(block[j, k], expected, rtol=1e-9)


def test_units_without_a_consumer_use_their_block_or_at_least_its_diagonal(
    context: SearchContext,
) -> None:
    (group, *_) = context.structure.of_kind("qk_coordinate")
    config = SppConfig()
    exact = group_damage(group, context.statistics, None, config)
    bare = replace(context.statistics, fisher_blocks={})
    diagonal = group_damage(group, bare, None, config)
    fisher = context.statistics.mean("fisher", group.name).numpy()
    np.testing.assert_allclose(diagonal, fisher / 2)
    assert not np.allclose(exact, diagonal, atol=0)
    first = exact.reshape(group.num_lanes, -1).argmin(axis=1)
    np.testing.assert_array_equal(first, diagonal.reshape(group.num_lanes, -1).argmin(axis=1))


def test_measured_curvatures_are_pooled_where_there_are_sums_for_it(
    context: SearchContext,
) -> None:
    (group, *_) = context.structure.of_kind("ffn_channel")
    weight = weight_of(context, group.consumer)
    as_measured = group_damage(group, context.statistics, weight, SppConfig(pooling=False))
    without = group_damage(group, context.statistics, weight, SppConfig())
    np.testing.assert_array_equal(without, as_measured)  # a term per token: no such sums
    squares, terms = context.statistics.fisher[group.name].double(), context.statistics.tokens
    random = torch.rand(len(squares), generator=torch.Generator().manual_seed(0)).double()
    pooled = replace(
        context.statistics,
        gradient_sizes={group.name: (squares * terms).sqrt() * (0.3 + 0.4 * random)},
        gradient_fourths={group.name: squares.square() / terms * 40},
    )
    found = group_damage(group, pooled, weight, SppConfig())
    assert not np.allclose(found, as_measured, rtol=1e-3)
    again = group_damage(group, pooled, weight, SppConfig(pooling=False))
    np.testing.assert_array_equal(again, as_measured)


@every_way
def test_a_group_goes_on_from_units_already_out(
    context: SearchContext, settings: dict[str, Any]
) -> None:
    config = SppConfig(**settings)
    for group in context.structure.groups:
        weight = weight_of(context, group.consumer)
        whole = group_damage(group, context.statistics, weight, config)
        removed = np.zeros(group.num_units, dtype=np.bool_)
        first = whole.reshape(group.num_lanes, -1).argmin(axis=1)
        removed[first + group.lane_width * np.arange(group.num_lanes)] = True
        again = group_damage(
            group, context.statistics, weight, config, removed=removed, damage=whole
        )
        np.testing.assert_array_equal(again[removed], whole[removed])
        assert (again >= whole[removed].min()).all()
        assert np.isfinite(again).all()
        if config.solver != "flow":  # greedy: the rest of the order is the same order
            np.testing.assert_allclose(again, whole, rtol=1e-5)


def test_duplicated_channels_go_first_one_of_each_pair(tiny_llama: Callable[..., Any]) -> None:
    model = tiny_llama()
    mlp = model.model.layers[0].mlp
    with torch.no_grad():
        for linear in (mlp.gate_proj, mlp.up_proj):
            linear.weight[24:30] = linear.weight[:6]
    ids = torch.randint(0, 300, (4, 24), generator=torch.Generator().manual_seed(0))
    context = context_of(model, ids)
    (group, *_) = context.structure.of_kind("ffn_channel")
    weight = weight_of(context, group.consumer)
    twins = {frozenset((unit, unit + 24)) for unit in range(6)}

    def first_six(**settings: Any) -> set[int]:
        config = SppConfig(rounds=48, damping=1e-4, **settings)
        return set(np.argsort(group_damage(group, context.statistics, weight, config))[:6].tolist())

    assert all(len(pair & first_six()) == 1 for pair in twins)
    assert not all(len(pair & first_six(curvature="fisher")) == 1 for pair in twins)


def test_missing_sums_are_named(context: SearchContext) -> None:
    bare = replace(context, statistics=replace(context.statistics, output_gradients={}))
    with pytest.raises(RequestError, match="the sums 'output_gradients' of .*o_proj.* are needed"):
        Spp().rank(bare)
    with pytest.raises(RequestError, match="over 0 rows"):
        Spp().rank(replace(context, statistics=Statistics()))


def test_nan_in_the_sums_is_named(context: SearchContext) -> None:
    name = context.structure.of_kind("ffn_channel")[0].consumer
    context.statistics.moments[name][0, 0] = torch.nan
    with pytest.raises(NumericsError, match=f"the sums 'moments' of '{name}' hold NaN"):
        Spp().rank(context)


def test_wanted_statistics_follow_the_dynamics() -> None:
    assert Spp().wanted().output_gradients
    assert not Spp(SppConfig(dynamics="coupled")).wanted().output_gradients
    assert not Spp(SppConfig(dynamics="authors")).wanted().backward


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"dynamics": "couple"},
            "unknown dynamics 'couple' .*; use surrogate or coupled or authors",
        ),
        ({"curvature": "hessian"}, "unknown curvature 'hessian' .*; use refit or fisher"),
        ({"solver": "flow"}, "use curvature='fisher' with it, or solver='elimination'"),
        ({"coupling": 0.0}, "coupling is 0.0; it must be above 0"),
        ({"damping": float("nan")}, "damping is nan; it must be above 0"),
        ({"rounds": 0}, "rounds is 0; it must be at least 1"),
        ({"max_steps": 0}, "max_steps is 0; it must be at least 1"),
        ({"batches_per_step": -1}, "batches_per_step is -1; give a count, or 0 for all"),
        ({"step": 2.0}, "step is 2.0; above 1"),
        ({"threshold": 1.0}, "threshold is 1.0 at kappa 1.0; below 2 units enter while"),
        ({"threshold": 3.0, "kappa": 0.5}, "below 4 units enter while"),
        ({"guard": 1.0}, "guard is 1.0; it is a multiple of the dense loss above 1"),
        ({"lambda_": 3.0}, "this method has no setting 'lambda_'; it has .*threshold"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_settings_say_what_to_do(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        SppConfig.from_dict(settings)


def test_settings_survive_a_round_trip_and_all_have_help() -> None:
    config = SppConfig(dynamics="coupled", coupling=0.5)
    assert SppConfig.from_dict(config.to_dict()) == config
    assert all(item.metadata["help"] for item in fields(SppConfig))
