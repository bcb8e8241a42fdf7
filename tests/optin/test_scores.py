"""The table of scores: how it becomes damages, its file, and the settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunepath.errors import PathFileError, RequestError
from prunepath.methods.optin.config import OptinConfig
from prunepath.methods.optin.scores import TrajectoryScores
from prunepath.structure.units import Structure
from tests.optin.scenes import context


def structure() -> Structure:
    return context("bert").structure


def table(seed: int = 0, **facts: Any) -> TrajectoryScores:
    """Random scores of every unit over four features; a group begins behind its layer."""
    random = np.random.default_rng(seed)
    groups = structure().groups
    first = {group.name: group.layer + 1 for group in groups}
    md = {}
    for group in groups:
        values = random.gamma(1.0, size=(group.num_units, 4))
        values[:, : first[group.name]] = 0
        md[group.name] = values
    return TrajectoryScores(
        features=("a", "b", "c", "d"),
        first=first,
        md=md,
        kd={group.name: random.gamma(1.0, size=group.num_units) * 1e-3 for group in groups},
        exact={group.name: np.ones(group.num_units, dtype=np.bool_) for group in groups},
        facts={"samples": 3, "horizon": 0, **facts},
    )


def flat(values: Any) -> np.ndarray:
    return np.concatenate([values[group.name] for group in structure().groups])


def test_one_weight_for_all_brings_both_medians_together() -> None:
    scores = table()
    damage = scores.combine(OptinConfig(lambda_kd=0.5), structure())
    md = flat({name: values.sum(1) for name, values in scores.md.items()})
    kd = flat(scores.kd)
    inside = [group.name for group in structure().groups if not group.is_sublayer]
    md_median = np.median(np.concatenate([scores.md[name].sum(1) for name in inside]))
    kd_median = np.median(np.concatenate([scores.kd[name] for name in inside]))
    expected = md + 0.5 * md_median / kd_median * kd
    np.testing.assert_allclose(flat(damage), expected, rtol=1e-12)
    alone = scores.combine(OptinConfig(lambda_kd=0.0), structure())
    np.testing.assert_allclose(flat(alone), md, rtol=1e-12)


def test_mean_and_horizon_count_the_features_behind_a_unit() -> None:
    scores = table()
    mean = scores.combine(OptinConfig(lambda_kd=0.0, md_norm="mean"), structure())
    near = scores.combine(OptinConfig(lambda_kd=0.0, horizon=1), structure())
    for group in structure().groups:
        behind = scores.md[group.name][:, group.layer + 1 :]
        np.testing.assert_allclose(mean[group.name], behind.mean(1), rtol=1e-12)
        np.testing.assert_allclose(near[group.name], behind[:, 0], rtol=1e-12)


def test_features_of_another_tower_do_not_thin_the_mean() -> None:
    scores = table()
    name = structure().groups[0].name
    scores.md[name][:, 3] = 0  # never reached
    mean = scores.combine(OptinConfig(lambda_kd=0.0, md_norm="mean"), structure())
    np.testing.assert_allclose(mean[name], scores.md[name][:, 1:3].mean(1), rtol=1e-12)


def test_an_answer_that_never_changes_weighs_nothing() -> None:
    scores = table()
    silent = replace(scores, kd={name: 0 * values for name, values in scores.kd.items()})
    damage = flat(silent.combine(OptinConfig(), structure()))
    np.testing.assert_allclose(damage, flat({n: v.sum(1) for n, v in scores.md.items()}))


def test_the_released_language_code_orders_by_index() -> None:
    """Equal units: what is left is its envelope, its last layer and its whole powers of ten."""
    scores = table()
    for group in structure().groups:
        scores.md[group.name][:] = 0
        scores.md[group.name][:, -1] = 1.0
        scores.kd[group.name][:] = 0.2 / (16 * 3)  # L_KD 0.2, five times below L_MD
    damage = scores.combine(OptinConfig(legacy="language", lambda_kd=0.1), structure())
    # r / Lambda = 5 / 10 lies within a decade, so the factor is 1: 1 + 0.2.
    first, last = (structure().groups_by_name[f"layers.{i}.ffn_channel"] for i in (0, 1))
    expected = 1.2 * np.geomspace(100, 1, first.num_units)
    np.testing.assert_allclose(damage[first.name], expected, rtol=1e-12)
    np.testing.assert_allclose(damage[last.name], 0.5 * expected, rtol=1e-12)
    head = structure().groups_by_name["layers.0.head"]
    envelope = 0.5 * 1.2 * np.geomspace(10, 1, head.num_units)
    np.testing.assert_allclose(damage[head.name], envelope, rtol=1e-12)
    vision = scores.combine(OptinConfig(legacy="vision", lambda_kd=0.1), structure())
    np.testing.assert_allclose(vision[first.name], 1.2, rtol=1e-12)
    np.testing.assert_allclose(vision[last.name], 1.2e-4, rtol=1e-12)


def test_the_released_code_keeps_the_mantissa_of_the_answer_alone() -> None:
    scores = table()
    for group in structure().groups:
        scores.md[group.name][:] = 0
        scores.md[group.name][:, -1] = 1.0
    name = "layers.0.head"
    wanted = np.array([3e-3, 3e-5, 3e-7, 4.0])  # L_KD; the last one is larger than L_MD
    scores.kd[name][:] = wanted / (16 * 3)
    damage = scores.combine(OptinConfig(legacy="vision", lambda_kd=0.1), structure())[name]
    # 1/r in decades: trunc(log10 333 - 1) = 1, trunc(4.52 - 1) = 3, trunc(6.52 - 1) = 5.
    np.testing.assert_allclose(damage, [1 + 3e-2, 1 + 3e-2, 1 + 3e-2, 1 + 4.0], rtol=1e-9)


def test_scores_come_back_from_their_file(tmp_path: Path) -> None:
    scores, file = table(), tmp_path / "scores.safetensors"
    scores.save(file)
    again = TrajectoryScores.load(file)
    assert again.checksum == scores.checksum
    assert (again.features, again.first, again.facts) == (
        scores.features,
        scores.first,
        scores.facts,
    )
    for name in scores.md:
        np.testing.assert_array_equal(again.md[name], scores.md[name])
        np.testing.assert_array_equal(again.exact[name], scores.exact[name])


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "scores.safetensors"
    with pytest.raises(PathFileError, match=r"cannot be read .* so search again"):
        TrajectoryScores.load(file)
    table().save(file)
    whole = file.read_bytes()
    file.write_bytes(whole[:-7] + bytes([whole[-7] ^ 1]) + whole[-6:])
    with pytest.raises(PathFileError, match="does not match its own checksum"):
        TrajectoryScores.load(file)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PathFileError, match="cannot be read"):
        TrajectoryScores.load(file)
    file.write_bytes(whole.replace(b'\\"format_version\\": 1', b'\\"format_version\\": 9'))
    with pytest.raises(PathFileError, match="has format 9 .* upgrade prunepath"):
        TrajectoryScores.load(file)


def test_a_horizon_that_was_not_recorded_is_refused() -> None:
    scores = table(horizon=2)
    scores.combine(OptinConfig(horizon=1), structure())
    for horizon in (0, 3):
        with pytest.raises(RequestError, match="these scores hold 2 features behind every unit"):
            scores.combine(OptinConfig(horizon=horizon), structure())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "fast"}, "unknown mode 'fast' of the method 'optin'; use hybrid or gn or exact"),
        ({"md_norm": "max"}, "unknown md_norm 'max' .* use sum or mean"),
        ({"legacy": "vit"}, "unknown legacy 'vit' .* use none or language or vision"),
        ({"tokens": 1}, "tokens is 1; rows are compared with each other"),
        ({"samples": 0}, "samples is 0; it must be at least 1"),
        ({"candidates_tokens": -2}, "candidates_tokens is -2; give a number of rows"),
        ({"lambda_kd": -0.1}, "lambda_kd is -0.1; it is a weight"),
        ({"horizon": -1}, "horizon is -1; give a number of features"),
        ({"legacy": "vision", "md_norm": "mean"}, "leave md_norm at 'sum'"),
        ({"envelope": True}, "this method has no setting 'envelope'"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        OptinConfig.from_dict(settings)
