"""Selections: what they say about themselves and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from prunepath.errors import RequestError
from prunepath.structure.selection import Selection, everything
from prunepath.surgery.cut import cut
from tests.conformance.families import dense, structure_of

FAMILY = "llama-untied"
REFUSED = {
    "unknown group": (
        {"layers.9.ffn_channel": np.ones(56, dtype=bool)},
        "names the group 'layers.9.ffn_channel', which this model does not have; its groups look "
        "like 'layers.0.qk_coordinate'",
    ),
    "wrong length": (
        {"layers.0.ffn_channel": np.ones(55, dtype=bool)},
        "has 55 flags for 'layers.0.ffn_channel', which has 56 units; give one flag per unit",
    ),
    "unequal lanes": (
        {"layers.1.vo_coordinate": np.arange(24) > 2},
        r"keeps \[9, 12\] units per kv in 'layers.1.vo_coordinate'; all of them must keep equally",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    keep, message = REFUSED[case]
    structure = structure_of(FAMILY)
    with pytest.raises(RequestError, match=message):
        Selection(keep).validate(structure)
    before = dense(FAMILY)
    with pytest.raises(RequestError, match=message):
        cut(before, structure, Selection(keep))


def test_everything_is_valid_and_absent_groups_are_whole() -> None:
    structure = structure_of(FAMILY)
    everything(structure).validate(structure)
    Selection({}).validate(structure)
    assert all(Selection({}).of(group).all() for group in structure.groups)


def test_without_copies_and_subsets_order() -> None:
    structure = structure_of(FAMILY)
    group = structure.groups_by_name["layers.0.ffn_channel"]
    whole = everything(structure)
    for start in (whole, Selection({})):
        less = start.without([(group, np.array([3, 5]))])
        assert np.flatnonzero(~less.of(group)).tolist() == [3, 5]
        assert less.issubset(whole, structure)
        assert not whole.issubset(less, structure)
    assert whole.of(group).all(), "the original changed"
