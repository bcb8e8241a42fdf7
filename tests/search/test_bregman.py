"""The stepper against the closed form on a diagonal quadratic loss, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from prunepath.methods.bregman import (
    Bregman,
    BregmanState,
    curvature_from,
    dual_at,
    importance_order,
)
from prunepath.methods.flow import flow_order
from tests.search.problems import random_block

CURVATURE = torch.tensor([0.01, 0.05, 0.1, 0.5, 2.0], dtype=torch.float64)


def entry_times(nu: float, threshold: float, kappa: float = 1.0) -> Tensor:
    """The closed form, once the transient has died away."""
    rest = CURVATURE / (CURVATURE + 1 / nu)
    return nu * (threshold - (1 - rest) ** 2 / kappa) / rest


def run(bregman: Bregman, max_steps: int = 10**6) -> BregmanState:
    state = BregmanState.start(len(CURVATURE))
    while not state.entered.all() and state.step < max_steps:
        bregman.step_(state, CURVATURE * (state.mask - 1))
    return state


@pytest.mark.parametrize(
    ("nu", "printed"),
    [(1.0, [406, 86, 45.9, 13.7, 7.3]), (10.0, [459.1, 136.7, 95, 59.7, 52.5])],
)
def test_entry_times_are_those_of_the_closed_form(nu: float, printed: list[float]) -> None:
    state = run(Bregman(alpha=0.1, nu=nu, threshold=5.0))
    np.testing.assert_allclose(state.time, printed, atol=0.06)
    np.testing.assert_allclose(state.time, entry_times(nu, 5.0), rtol=1e-8)


@pytest.mark.parametrize("alpha", [0.02, 0.1, 0.5])
def test_sub_step_times_do_not_depend_on_the_step(alpha: float) -> None:
    state = run(Bregman(alpha=alpha, nu=1.0, threshold=5.0))
    np.testing.assert_allclose(state.time, entry_times(1.0, 5.0), rtol=1e-6)


def test_damping_shortens_the_transient() -> None:
    state = run(Bregman(alpha=0.05, nu=1.0, threshold=5.0, kappa=3.0))
    np.testing.assert_allclose(state.time, entry_times(1.0, 5.0, kappa=3.0), rtol=1e-8)


def test_it_starts_open_and_with_nothing_entered() -> None:
    state = BregmanState.start(3)
    assert state.mask.tolist() == [1, 1, 1]
    assert state.dual.tolist() == state.twin.tolist() == [0, 0, 0]
    assert not state.entered.any()
    assert {part.dtype for part in (state.mask, state.dual, state.twin, state.time)} == {
        torch.float64
    }


def test_a_unit_that_entered_is_released() -> None:
    bregman = Bregman(alpha=0.05, nu=1.0, threshold=2.0)
    state = BregmanState.start(1)
    for _ in range(2000):
        bregman.step_(state, 0.5 * (state.mask - 1))
    np.testing.assert_allclose(state.mask, 1, atol=1e-6)  # no pull is left: unbiased
    np.testing.assert_allclose(state.twin, 1, atol=1e-6)


def test_a_gate_that_turns_negative_enters_only_where_both_sides_may() -> None:
    for two_sided in (False, True):
        bregman = Bregman(alpha=0.05, nu=1.0, threshold=2.0, two_sided=two_sided)
        state = BregmanState.start(1)
        for _ in range(400):
            bregman.step_(state, 2 * (state.mask + 1))  # the loss wants the gate at -1
        assert bool(state.entered.all()) is two_sided
        assert bool((state.twin < 0).all()) is two_sided


@pytest.mark.parametrize("nu", [0.1, 1.0, 10.0])
def test_the_curvature_comes_back_from_an_entry_time(nu: float) -> None:
    state = run(Bregman(alpha=0.05, nu=nu, threshold=5.0))
    threshold = torch.full_like(CURVATURE, 5.0)
    np.testing.assert_allclose(dual_at(CURVATURE, state.time, nu), threshold, rtol=1e-7)
    np.testing.assert_allclose(curvature_from(state.time, threshold, nu), CURVATURE, rtol=1e-5)


def test_the_curvature_comes_back_from_the_dual_of_a_unit_that_never_entered() -> None:
    bregman = Bregman(alpha=0.001, nu=1.0, threshold=5.0)
    state = run(bregman, max_steps=6000)
    assert not state.entered.any()
    time = torch.full_like(CURVATURE, 6.0)
    np.testing.assert_allclose(
        curvature_from(time, state.dual, 1.0), CURVATURE, rtol=2e-3
    )  # steps of 0.001 leave that much in the transient


def test_settling_slower_changes_the_transient_and_not_the_answer() -> None:
    bregman = Bregman(alpha=0.02, nu=1.0, threshold=5.0)
    slower = torch.tensor([1.0, 0.9, 0.8, 0.7, 0.6], dtype=torch.float64)
    state = BregmanState.start(5)
    while not state.entered.all():
        bregman.step_(state, CURVATURE * (state.mask - 1), lambda force: slower * force)
    threshold = torch.full_like(CURVATURE, 5.0)
    found = curvature_from(state.time, threshold, 1.0, slower)
    np.testing.assert_allclose(found, CURVATURE, rtol=1e-5)


def test_impossible_times_end_at_the_caps() -> None:
    threshold = torch.full((2,), 5.0, dtype=torch.float64)
    time = torch.tensor([1.0, 5.0], dtype=torch.float64)  # before nu lambda no curvature enters
    assert curvature_from(time, threshold, 1.0).tolist() == pytest.approx([1e4, 1e4])
    still = curvature_from(torch.tensor([50.0]), torch.tensor([-1.0]), 1.0)
    assert still.tolist() == pytest.approx([1e-9])


def test_units_that_never_entered_come_by_dual_then_curvature_then_index() -> None:
    bregman = Bregman(alpha=0.1, nu=1.0, threshold=5.0)
    state = BregmanState.start(6)
    state.time[:2] = torch.tensor([3.0, 2.0])
    state.dual = torch.tensor([9.0, 8.0, 1.0, 1.0, 4.0, 1.0], dtype=torch.float64)
    curvature = torch.tensor([0.0, 0.0, 0.1, 0.2, 0.0, 0.1], dtype=torch.float64)
    assert importance_order(bregman, state, curvature).tolist() == [1, 0, 4, 3, 2, 5]


def test_the_flow_on_a_diagonal_block_orders_by_curvature() -> None:
    order = flow_order(CURVATURE[[2, 0, 4, 1, 3]].diag())
    assert order.tolist() == [1, 3, 0, 4, 2]


def test_the_flow_equals_plain_small_steps() -> None:
    block = random_block(12, seed=5)
    scaled = block / block.diagonal().median()
    bregman = Bregman(alpha=0.005, nu=1.0, threshold=5.0)
    assert bregman.alpha < 2 / (float(torch.linalg.eigvalsh(scaled).max()) + 1)
    state = BregmanState.start(12)
    while not state.entered.all() and state.step < 100_000:
        bregman.step_(state, scaled @ (state.mask - 1))
    expected = importance_order(bregman, state, scaled.diagonal()).flip(0)
    assert flow_order(block, step=0.005, max_steps=100_000).tolist() == expected.tolist()


def test_the_flow_goes_on_from_units_already_out() -> None:
    block = random_block(8, seed=6)
    removed = torch.zeros(8, dtype=torch.bool)
    removed[[1, 5]] = True
    order = flow_order(block, removed=removed)
    assert sorted(order.tolist()) == [0, 2, 3, 4, 6, 7]
