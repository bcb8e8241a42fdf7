"""Hybrid scores: estimates everywhere, the truth where it matters."""

from __future__ import annotations

import numpy as np
import pytest

from prunepath.errors import RequestError
from prunepath.methods.optin.config import OptinConfig
from prunepath.methods.optin.exact import exact_scores, measure
from prunepath.methods.optin.gauss_newton import gauss_newton_scores
from prunepath.methods.optin.hybrid import hybrid_scores, nearest_to_cut
from prunepath.structure.cost import unit_cost
from tests.optin.scenes import scene


def test_heads_and_units_near_the_cut_are_measured() -> None:
    found = scene("bert", probes=4, exact_share=0.2)
    scores, exact = hybrid_scores(found), exact_scores(found)
    structure = found.context.structure
    fine = structure.finest_groups
    measured = sum(int(scores.exact[group.name].sum()) for group in fine)
    assert measured == round(0.2 * sum(group.num_units for group in fine))
    for group in structure.groups:
        known = scores.exact[group.name]
        if group not in fine:
            assert known.all()
        np.testing.assert_allclose(
            scores.md[group.name][known], exact.md[group.name][known], rtol=1e-4, atol=1e-9
        )
        np.testing.assert_allclose(
            scores.kd[group.name][known], exact.kd[group.name][known], rtol=1e-3, atol=1e-9
        )
    assert any(not scores.exact[group.name].any() for group in fine) or measured > len(fine)


def test_everything_measured_is_exact() -> None:
    found = scene("llama", probes=2, exact_share=1.0)
    scores, exact = hybrid_scores(found), exact_scores(found)
    for name in exact.md:
        zero = scores.md[name].sum(1) + scores.kd[name] == 0
        assert (scores.exact[name] | zero).all()
        np.testing.assert_allclose(scores.md[name], exact.md[name], rtol=1e-4, atol=1e-9)


def test_no_share_measures_heads_alone() -> None:
    found = scene("bert", probes=2, exact_share=0.0)
    scores = hybrid_scores(found)
    for group in found.context.structure.finest_groups:
        assert not scores.exact[group.name].any()


@pytest.mark.parametrize("cut", [0.3, 0.6, 0.9])
def test_the_nearest_units_lie_around_the_cut(cut: float) -> None:
    found = scene("bert", probes=4, cut=cut)
    scores = gauss_newton_scores(found)
    structure = found.context.structure
    near = nearest_to_cut(found, scores, 12)
    assert sum(len(units) for units in near.values()) == 12
    damage = scores.combine(found.config, structure)
    density, macs, chosen = [], [], []
    for group in structure.finest_groups:
        cost = unit_cost(structure, group, found.longest)
        density.append(np.log(damage[group.name] / cost.params))
        macs.append(np.full(group.num_units, cost.macs))
        chosen.append(np.isin(np.arange(group.num_units), near.get(group.name, [])))
    flat, weight, picked = map(np.concatenate, (density, macs, chosen))
    low, high = flat[picked].min(), flat[picked].max()
    between = (flat >= low) & (flat <= high)
    assert (picked == between).all()
    kept = weight[flat > high].sum() / weight.sum()
    assert kept <= cut <= weight[flat >= low].sum() / weight.sum()


def test_measured_units_are_not_measured_again() -> None:
    found = scene("bert", probes=4)
    scores = gauss_newton_scores(found)
    near = nearest_to_cut(found, scores, 6)
    for name, units in near.items():
        scores.exact[name][units] = True
    again = nearest_to_cut(found, scores, 6)
    for name, units in again.items():
        assert not np.isin(units, near.get(name, [])).any()
    assert measure(found, again, "again").keys() == again.keys()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probes": 0}, "probes is 0; it must be at least 1"),
        ({"cut": 1.0}, "cut is 1.0; it is the share of MACs that is kept"),
        ({"exact_share": -0.1}, "exact_share is -0.1; it is a share of all units"),
        ({"mode": "fast"}, "unknown mode 'fast' of the method 'optin'; use hybrid or gn or exact"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, float], message: str) -> None:
    with pytest.raises(RequestError, match=message.replace(".", r"\.")):
        OptinConfig(**settings)
