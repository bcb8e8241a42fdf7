"""Residual variance: what is predicted is what is measured, before and after the exact refit."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from prunepath.errors import RequestError
from prunepath.methods.method import SearchContext, total_order
from prunepath.methods.residual import Residual, ResidualConfig, residual_damage
from prunepath.methods.scope import scored_part
from prunepath.statistics.repairs import REPAIRS, error_after_repair, moment_for
from prunepath.structure.gates import owner_index
from prunepath.structure.matrices import weight_of
from prunepath.structure.selection import Selection, kept_positions
from prunepath.structure.units import UnitGroup
from prunepath.surgery.biases import give_biases_
from prunepath.surgery.cut import cut
from prunepath.surgery.refit import cut_consumers, refit_from_moments_
from tests.conformance.families import random_tokens, tiny
from tests.search.problems import context_of

NEARLY_NONE = 1e-14  # damping: a ridge far below what float64 can tell
KINDS = ("ffn_channel", "vo_coordinate", "query_head", "kv_group")
every_repair = pytest.mark.parametrize("repair", REPAIRS)
every_kind = pytest.mark.parametrize("kind", KINDS)


@cache
def searched() -> SearchContext:
    """A tiny Llama in float64, without biases, after a calibration pass."""
    model = tiny("Llama", num_key_value_heads=2, intermediate_size=24).double()
    return context_of(model, random_tokens(4, 30))


@cache
def inputs_of(consumer: str) -> Tensor:
    """All rows a consumer reads in the dense model, (N, I)."""
    context = searched()
    rows: list[Tensor] = []
    module = context.model.get_submodule(consumer)
    handle = module.register_forward_pre_hook(lambda _, args: rows.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        context.model(**context.samples.inputs)
    handle.remove()
    return torch.cat(rows)


def groups(kind: str) -> Iterator[tuple[UnitGroup, Tensor]]:
    context = searched()
    for group in context.structure.of_kind(kind):
        yield group, weight_of(context.model.get_submodule(group.consumer))


def settings(repair: str, **others: Any) -> ResidualConfig:
    return ResidualConfig(repair=repair, damping=NEARLY_NONE, **others)


def first_gone(group: UnitGroup, damage: Tensor, count: int) -> Selection:
    """A selection without the `count` units of every lane that leave first."""
    keep = np.ones(group.num_units, dtype=np.bool_)
    for lane in damage.view(group.num_lanes, -1).argsort(1) + torch.arange(
        0, group.num_units, group.lane_width
    ).unsqueeze(1):
        keep[lane[:count].numpy()] = False
    return Selection({group.name: keep})


def columns_kept(group: UnitGroup, selection: Selection) -> np.ndarray:
    return kept_positions(group.gate.layout, [group], selection)


def predicted(group: UnitGroup, weight: Tensor, selection: Selection, repair: str) -> float:
    moment = moment_for(searched().statistics, group.consumer, repair)
    return error_after_repair(weight, moment, columns_kept(group, selection), repair)


def measured(group: UnitGroup, weight: Tensor, selection: Selection, repair: str) -> float:
    """Cut the model, refit that consumer, and run it on the dense inputs."""
    context = searched()
    smaller = cut(context.model, context.structure, selection)
    consumers = [
        each
        for each in cut_consumers(context.structure, selection, emptied=True)
        if each.name == group.consumer
    ]
    give_biases_(smaller, context.structure, selection, [group.consumer])
    refit_from_moments_(
        smaller, {group.consumer: weight}, consumers, context.statistics, repair=repair, ridge=0.0
    )
    rows = inputs_of(group.consumer)
    kept = torch.from_numpy(columns_kept(group, selection))
    with torch.no_grad():
        found = smaller.get_submodule(group.consumer)(rows[:, kept])
    return float((rows @ weight.T - found).square().sum(1).mean())


@every_repair
@every_kind
def test_the_error_of_a_set_is_predicted_exactly(kind: str, repair: str) -> None:
    for group, weight in groups(kind):
        statistics = searched().statistics
        damage = residual_damage(group, statistics, weight, settings(repair))
        for count in {1, group.lane_width // 2 or 1, group.lane_width}:
            gone = first_gone(group, damage, count)
            found = measured(group, weight, gone, repair)
            assert found > 0
            np.testing.assert_allclose(
                predicted(group, weight, gone, repair), found, rtol=1e-10, atol=1e-12
            )


@every_repair
@every_kind
def test_in_one_round_a_damage_is_the_error_of_that_unit_alone(kind: str, repair: str) -> None:
    for group, weight in groups(kind):
        damage = residual_damage(group, searched().statistics, weight, settings(repair, rounds=1))
        for unit in range(0, group.num_units, 5):
            keep = np.ones(group.num_units, dtype=np.bool_)
            keep[unit] = False
            alone = Selection({group.name: keep})
            # Ties of a record are broken by a part in a billion.
            np.testing.assert_allclose(
                damage[unit], predicted(group, weight, alone, repair), rtol=2e-8
            )


@every_repair
@pytest.mark.parametrize("kind", ["ffn_channel", "kv_group"])  # groups of one lane
def test_one_by_one_the_damages_are_what_the_error_grows_by(kind: str, repair: str) -> None:
    for group, weight in groups(kind):
        config = settings(repair, rounds=group.num_units)
        damage = residual_damage(group, searched().statistics, weight, config)
        level, before = 0.0, 0.0
        for count in range(1, group.num_units + 1):
            error = predicted(group, weight, first_gone(group, damage, count), repair)
            unit = int(damage.argsort()[count - 1])
            level = max(level, error - before)  # a damage never falls along the order
            np.testing.assert_allclose(damage[unit], level, rtol=1e-6, atol=1e-9)
            before = error
        if repair == "none":
            whole = (inputs_of(group.consumer) @ weight.T).square().sum(1).mean()
            np.testing.assert_allclose(before, float(whole), rtol=1e-10)


@every_kind
def test_every_repair_leaves_less_error_than_a_weaker_one(kind: str) -> None:
    for group, weight in groups(kind):
        damage = residual_damage(group, searched().statistics, weight, settings("linear"))
        gone = first_gone(group, damage, max(1, group.lane_width // 2))
        none, bias, linear, both = (predicted(group, weight, gone, repair) for repair in REPAIRS)
        assert none > bias > both
        assert none > linear > both


def test_a_ridge_counts_in_the_error_and_in_the_refit_alike() -> None:
    group, weight = next(groups("ffn_channel"))
    moment = moment_for(searched().statistics, group.consumer, "linear")
    ridge = 0.1 * float(moment.diagonal().median())
    keep = np.arange(group.num_units) % 3 > 0
    stay, out = torch.from_numpy(np.flatnonzero(keep)), torch.from_numpy(np.flatnonzero(~keep))
    system = moment[stay][:, stay] + ridge * torch.eye(len(stay), dtype=torch.float64)
    moved = weight.clone()
    moved[:, out] = 0
    moved[:, stay] += weight[:, out] @ moment[out][:, stay] @ torch.linalg.inv(system)
    gap = weight - moved
    error = (gap @ moment * gap).sum() + ridge * gap.square().sum()
    found = error_after_repair(weight, moment, keep, "linear", ridge=ridge)
    np.testing.assert_allclose(found, float(error), rtol=1e-10)


def by_hand(group: UnitGroup, weight: Tensor, metric: str) -> Tensor:
    rows = inputs_of(group.consumer)
    if metric == "wanda":
        return weight.abs().sum(0) * rows.square().mean(0).sqrt()
    return weight.square().sum(0) * rows.var(0, unbiased=False)


def rank(**config: Any) -> Any:
    method = Residual(ResidualConfig(**config))
    context = searched()
    part = scored_part(context.structure, method)
    return method.rank(SearchContext(**{**vars(context), "structure": part})), part


@pytest.mark.parametrize(("metric", "repair"), [("wanda", "none"), ("wifv", "bias")])
def test_published_scores_are_sums_over_columns(metric: str, repair: str) -> None:
    ranking, structure = rank(metric=metric, repair=repair)
    for group in structure.groups:
        weight = weight_of(searched().model.get_submodule(group.consumer))
        columns = by_hand(group, weight, metric)
        expected = torch.zeros(group.num_units, dtype=torch.float64)
        expected.index_add_(0, owner_index(group), columns)
        np.testing.assert_allclose(ranking.damage[group.name], expected, rtol=1e-9)
    if metric == "wifv":  # of single columns it is the energy that the bias cannot take up
        energy, _ = rank(metric="energy", repair="bias", rounds=1)
        for group in structure.of_kind("ffn_channel"):
            np.testing.assert_allclose(
                ranking.damage[group.name], energy.damage[group.name], rtol=1e-9
            )


def test_relative_damages_are_parts_of_the_output_energy() -> None:
    plain, structure = rank(repair="none", rounds=1)
    relative, _ = rank(repair="none", rounds=1, standardise="relative")
    for group in structure.groups:
        weight = weight_of(searched().model.get_submodule(group.consumer))
        whole = float((inputs_of(group.consumer) @ weight.T).square().sum(1).mean())
        np.testing.assert_allclose(
            relative.damage[group.name], plain.damage[group.name] / whole, rtol=1e-9
        )


def test_z_scores_are_those_of_flap() -> None:
    ranking, structure = rank(metric="wifv", repair="bias", standardise="zscore")
    expected: dict[str, Tensor] = {}
    for group in structure.groups:
        weight = weight_of(searched().model.get_submodule(group.consumer))
        columns = by_hand(group, weight, "wifv")
        if group.kind != "ffn_channel":
            columns = columns.square()
        z = (columns - columns.mean()) / columns.std(unbiased=False)
        expected[group.name] = torch.stack(
            [z[owner_index(group) == unit].mean() for unit in range(group.num_units)]
        )
    least = min(float(z.min()) for z in expected.values())
    for group in structure.groups:
        found = ranking.damage[group.name]
        assert (found >= 0).all()
        np.testing.assert_allclose(found, expected[group.name] - least, rtol=1e-7, atol=1e-9)
    assert ranking.extra["order"] == "damage"
    ranks = total_order(structure, ranking)["rank"]
    flat = torch.cat([expected[group.name] for group in structure.groups])
    place = np.concatenate([ranks[group.name] for group in structure.groups])
    assert (np.diff(flat.numpy()[np.argsort(place)]) <= 1e-12).all(), "one order by z-score"


def test_z_scores_of_equal_units_are_zero() -> None:
    ranking, _ = rank(repair="linear", standardise="zscore")
    assert all(np.isfinite(damage).all() for damage in ranking.damage.values())


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"repair": "weights"}, "unknown repair 'weights' of the method 'residual'; use one of"),
        ({"metric": "flap"}, "unknown metric 'flap' .*; use one of energy, wanda, wifv"),
        ({"standardise": "z"}, "unknown standardise 'z' .*; use one of none, relative, zscore"),
        ({"metric": "wifv"}, "is repaired by 'bias', and repair is 'linear'; set repair=bias"),
        ({"metric": "wanda", "repair": "bias"}, "set repair=none, or metric=energy"),
        ({"rounds": 0}, "rounds is 0; it must be at least 1"),
        ({"damping": 0.0}, "damping is 0.0; it must be above 0"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(config: dict[str, Any], match: str) -> None:
    with pytest.raises(RequestError, match=match):
        ResidualConfig(**config)


def test_what_a_method_cannot_score_is_left_alone_and_named() -> None:
    structure = searched().structure
    part = scored_part(structure, Residual())
    assert set(part.kinds) == set(structure.kinds) - {"qk_coordinate"}
    left = {item.module: item.reason for item in part.left_alone}
    place = structure.of_kind("qk_coordinate")[0].place
    assert left[f"{place}#qk_coordinate"] == (
        "the method 'residual' scores only inputs of linear maps"
    )
    only = structure.of_kind("qk_coordinate")
    with pytest.raises(RequestError, match="this model has units of the kinds qk_coordinate alone"):
        scored_part(type(structure)(**{**vars_of(structure), "groups": only}), Residual())


def vars_of(structure: Any) -> dict[str, Any]:
    return {name: getattr(structure, name) for name in structure.__dataclass_fields__}
