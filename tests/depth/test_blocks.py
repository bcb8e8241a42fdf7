"""Runs of layers that leave side by side, on distances that are given."""

from __future__ import annotations

import numpy as np
import pytest

from prunepath.methods.depth.blocks import block_order, free_choices

# Of five layers the two in the middle are closest as a pair, though layer 0 is the closest alone,
# and three are closest at the end.
ANGLES = np.array(
    [
        [0.10, 0.60, 0.70, 0.80, 0.90],
        [np.nan, 0.30, 0.20, 0.75, 0.78],
        [np.nan, np.nan, 0.40, 0.50, 0.35],
        [np.nan, np.nan, np.nan, 0.45, 0.55],
        [np.nan, np.nan, np.nan, np.nan, 0.25],
    ]
)


def random_distances(count: int, seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).random((count, count))
    found[np.tril_indices(count, -1)] = np.nan
    return found


def test_the_choices_of_the_paper_do_not_lie_in_each_other() -> None:
    assert free_choices(ANGLES) == {1: 0, 2: 1, 3: 2, 4: 1, 5: 0}


@pytest.mark.parametrize(
    ("target", "order"),
    [
        (1, (0, 1, 2, 3, 4)),  # around layer 0 there is only one way
        (2, (1, 2, 0, 3, 4)),  # within the pair 1 is closer; of its neighbours 0
        (3, (2, 3, 4, 1, 0)),  # 4 is given up first, then 3
        (4, (2, 3, 4, 1, 0)),
        (5, (2, 3, 4, 1, 0)),
    ],
)
def test_the_order_is_the_paper_s_at_its_target(target: int, order: tuple[int, ...]) -> None:
    found = block_order(ANGLES, target)
    first = free_choices(ANGLES)[target]
    assert set(found.layers[:target]) == set(range(first, first + target))
    assert found.layers == order
    assert found.distances[target - 1] == ANGLES[first, first + target - 1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("target", [1, 3, 8, 100])
def test_layers_that_are_gone_always_lie_side_by_side(target: int, seed: int) -> None:
    angles = random_distances(8, seed)
    found = block_order(angles, target)
    assert sorted(found.layers) == list(range(8))
    for count, distance in enumerate(found.distances, start=1):
        gone = sorted(found.layers[:count])
        assert gone == list(range(gone[0], gone[0] + count))
        assert distance == angles[gone[0], gone[-1]]


def test_a_single_layer_is_a_block() -> None:
    assert block_order(np.array([[0.3]]), 4).layers == (0,)
