"""Estimated scores: their mean is what small changes of a gate do, for every family."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prunepath.errors import NumericsError
from prunepath.methods.optin import gauss_newton
from prunepath.methods.optin.config import OptinConfig
from prunepath.methods.optin.exact import measure
from prunepath.methods.optin.features import reading
from prunepath.methods.optin.gauss_newton import gauss_newton_scores
from prunepath.methods.optin.probes import Prober, root_of
from prunepath.methods.optin.rows import Teacher, normalised
from prunepath.methods.optin.scene import Scene
from prunepath.structure.gates import frozen, gated
from tests.optin.scenes import MODELS, changed, context, scene
from tests.optin.test_exact import Notes, some

every_model = pytest.mark.parametrize("name", MODELS)
ROUNDED = ("llama", "t5", "mixtral")
"""Their norms compute in float32 whatever the model is in, so steps must be larger."""


def step_of(name: str) -> float:
    return 2e-3 if name in ROUNDED else 1e-5


def bent(
    found: Scene, group: str, unit: int, step: float
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """dF/dm (K, d) at every feature, and the answer, by small steps of one gate to both sides."""
    there = found.context
    runs = []
    for change in (step, -step):
        gate = torch.ones(there.structure.groups_by_name[group].num_units, dtype=torch.float64)
        gate[unit] += change
        with (
            torch.no_grad(),
            gated(there.model, there.structure, {group: gate}),
            reading(there.model, found.trajectory.sites, found.rows.rows) as features,
        ):
            answer = there.task.output(there.model, found.samples.inputs)
        runs.append(features)
    return [(up - down) / (2 * step) for up, down in zip(*runs, strict=True)], answer


def small_steps(
    found: Scene, group: str, unit: int, step: float = 1e-5
) -> tuple[np.ndarray, float]:
    """T1 at every feature, and the answer's distance per squared step."""
    there = found.context
    moves, answer = bent(found, group, unit, step)
    t1 = [
        2 * float(((move @ teacher.gram) * move).sum())
        for move, teacher in zip(moves, found.teachers, strict=True)
    ]
    with torch.no_grad():
        dense = there.task.output(there.model, found.samples.inputs)
        distance = float(there.task.distance(answer, dense, found.samples))
    return np.array(t1), distance / step**2


def ranks(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values)).astype(float)


def spearman(one: Any, other: Any) -> float:
    return float(np.corrcoef(ranks(np.asarray(one)), ranks(np.asarray(other)))[0, 1])


@pytest.mark.parametrize(("count", "width"), [(4, 6), (20, 6)])
def test_probes_have_the_second_moment_of_the_score(count: int, width: int) -> None:
    teacher = Teacher(normalised(torch.randn(count, width, dtype=torch.float64)))
    root = root_of(teacher)
    assert len(root) <= min(count, width)
    torch.testing.assert_close(root.T @ root, 2 * teacher.gram)


@every_model
def test_a_backward_pass_reads_what_a_probe_says_of_every_sample(name: str) -> None:
    found = scene(name, double=True)
    with frozen(found.context.model):
        prober = Prober(found)
        together = [[0, 1, 2]] if not prober.alone else [[0], [1], [2]]
        read: list[dict[str, torch.Tensor]] = []
        seeds: list[torch.Tensor] = []
        last = len(found.trajectory.sites) - 1
        for ids in together:
            with prober.graph(ids) as graph:
                seeds.append(
                    prober.probe(last, graph.rows[last], torch.Generator().manual_seed(len(read)))
                )
                read.append(dict(graph.backward(graph.rows[last], seeds[-1])))
        seed = torch.cat(seeds)
        sample = found.rows.positions[last] // found.rows.lengths[last]
        reached = 0
        for group, units in some(found, 2).items():
            for unit in units:
                move = bent(found, group, int(unit), step_of(name))[0][last]
                expected = torch.zeros(3, dtype=torch.float64)
                expected.index_add_(0, sample, (seed * move).sum(1))
                own = [part[group][:, unit] for part in read if group in part]
                if own:
                    allowed = 0.03 if name in ROUNDED else 1e-5
                    bound = allowed * float(expected.abs().max() + 0.1)
                    assert float((torch.cat(own) - expected).abs().max()) < bound
                    reached += 1
                else:
                    assert float(expected.abs().max()) < 1e-6
        assert reached > 3


@every_model
def test_estimates_rank_units_as_small_steps_do(name: str) -> None:
    found = scene(name, double=True, probes=48)
    scores = gauss_newton_scores(found)
    md, kd, own_md, own_kd = [], [], [], []
    with frozen(found.context.model):
        for group, units in some(found, 4).items():
            assert (scores.md[group][:, : found.trajectory.first[group]] == 0).all()
            assert not scores.exact[group].any()
            for unit in units:
                t1, distance = small_steps(found, group, int(unit), step_of(name))
                md.append(t1.sum())
                kd.append(distance)
                own_md.append(scores.md[group][unit].sum())
                own_kd.append(scores.kd[group][unit])
    assert spearman(own_md, md) > 0.95
    assert spearman(own_kd, kd) > 0.9
    large = np.array(md) > np.median(md)
    assert 0.85 < np.median((np.array(own_md) / md)[large]) < 1.15
    if name != "clip":  # its distance compares samples, and what mixes them is left out
        large = np.array(kd) > np.median(kd)
        assert 0.7 < np.median((np.array(own_kd) / kd)[large]) < 1.4


def test_the_mean_is_exact_at_every_feature() -> None:
    found = scene("bert", double=True, probes=600)
    scores = gauss_newton_scores(found)
    with frozen(found.context.model):
        for group, units in some(found, 2).items():
            for unit in units:
                t1, _ = small_steps(found, group, int(unit))
                own = scores.md[group][unit]
                np.testing.assert_allclose(own[t1 > 0], t1[t1 > 0], rtol=0.5)
                assert own.sum() == pytest.approx(t1.sum(), rel=0.3)


def test_what_is_removed_whole_is_ranked_alike() -> None:
    found = scene("bert", probes=32)
    scores = gauss_newton_scores(found)
    wanted = {
        group.name: np.arange(group.num_units)
        for group in found.context.structure.of_kind("ffn_channel")
    }
    exact = measure(found, wanted, "channels")
    own = np.concatenate([scores.md[name].sum(1) for name in wanted])
    assert spearman(own, np.concatenate([exact[name][0].sum(1) for name in wanted])) > 0.9


def test_the_seed_decides() -> None:
    def scores(seed: int) -> dict[str, np.ndarray]:
        return gauss_newton_scores(changed(scene("bert", probes=4), seed=seed)).md

    one, again, other = scores(0), scores(0), scores(1)
    for name in one:
        np.testing.assert_array_equal(one[name], again[name])
    assert any((one[name] != other[name]).any() for name in one)


def test_a_horizon_leaves_later_features_out() -> None:
    whole, near = (gauss_newton_scores(scene("bert", probes=4, horizon=h)) for h in (0, 1))
    for name, first in whole.first.items():
        np.testing.assert_array_equal(near.md[name][:, first], whole.md[name][:, first])
        assert (near.md[name][:, first + 1 :] == 0).all()
    assert near.facts["horizon"] == 1


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("stop", [1, 3])
def test_a_run_goes_on_to_the_same_bits(
    name: str, stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gauss_newton, "_SECONDS_BETWEEN_SAVES", 0.0)
    plain = scene(name, probes=6)
    expected = gauss_newton_scores(plain)
    with pytest.raises(KeyboardInterrupt):
        gauss_newton_scores(changed(plain, state_folder=tmp_path, progress=Notes(stop)))
    assert list(tmp_path.iterdir())
    left = Notes(100)
    found = gauss_newton_scores(changed(plain, state_folder=tmp_path, progress=left))
    assert left.notes == []
    for group in expected.md:
        np.testing.assert_array_equal(found.md[group], expected.md[group])
        np.testing.assert_array_equal(found.kd[group], expected.kd[group])


def test_features_that_are_not_finite_are_named() -> None:
    there = context("bert")
    broken = copy.deepcopy(there.model)
    with torch.no_grad():
        next(p for n, p in broken.named_parameters() if "layer.1" in n).fill_(float("nan"))
    with frozen(broken):
        found = Scene.of(replace(there, model=broken), OptinConfig())
    with pytest.raises(NumericsError, match=r"the feature '.*' of the dense model is not finite"):
        gauss_newton_scores(found)
