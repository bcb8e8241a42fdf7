"""docs/families.md says what the tables say, and the zoo holds a model of every table."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from prunepath.structure.families import FAMILIES
from tests.zoo.models import CASES
from tests.zoo.test_zoo import structure_of

ROOT = Path(__file__).resolve().parents[2]


def _tool() -> Any:
    spec = importlib.util.spec_from_file_location("page", ROOT / "tools" / "families_page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_tables_say() -> None:
    written = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    assert written == _tool().page(), "run python tools/families_page.py"


def test_every_kind_of_every_table_has_a_column() -> None:
    found = {
        kind.name
        for name in FAMILIES
        for stack in FAMILIES[name].stacks
        for place in stack.places
        for kind in place.kinds
    }
    assert found <= set(_tool().KINDS)


def test_every_table_has_a_model_in_the_zoo() -> None:
    met = {family for name in CASES for family in structure_of(name).family.split(", ")}
    tables = {FAMILIES[name].name for name in FAMILIES} - {"llama"}  # has a suite of its own
    assert tables <= met, tables - met
