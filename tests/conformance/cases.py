"""The product of the tables: family x unit kind x selection, as pytest parameters."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from prunepath.surgery.cut import cut
from tests.conformance.families import FAMILIES, dense, structure_of, unit_kinds
from tests.conformance.selections import SELECTIONS, changes_something, select

TOKENS = 20  # more than twice the sliding window

every_family = pytest.mark.parametrize("family", FAMILIES)
every_case = pytest.mark.parametrize(
    ("family", "kind", "name"),
    [
        pytest.param(family, kind, name, id=f"{family}-{kind}-{name}".replace(" ", "_"))
        for family in FAMILIES
        for kind, name in product(unit_kinds(family), SELECTIONS)
        if changes_something(kind, name)
    ],
)


def smaller(family: str, kind: str, name: str, attention: str = "sdpa") -> Any:
    """The cut model of one row."""
    structure = structure_of(family)
    return cut(dense(family, attention), structure, select(structure, kind, name))
