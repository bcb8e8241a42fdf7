"""Architectures in no table: what names suggest is proven on the model, or not cut at all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from prunepath.api.structure import read_structure
from prunepath.errors import ModelError
from prunepath.structure import walk
from prunepath.structure.gates import gated, gates_of
from prunepath.surgery.cut import cut
from prunepath.surgery.reshape import reshape_
from tests.conformance.families import FAMILIES as ROTARY
from tests.conformance.selections import select
from tests.zoo.build import Case, furthest, text
from tests.zoo.models import CASES

MODELS = {
    "bert": CASES["bert"],
    "gpt2": CASES["gpt2"],
    "llama-untied": Case(ROTARY["llama-untied"], text, ()),
    "llama-gqa-tied-biases": Case(ROTARY["llama-gqa-tied-biases"], text, ()),
}


class Stub:
    """The two things of a task that discovery asks for."""

    def __init__(self, case: Case) -> None:
        self.case = case

    def dummy(self, model: Any, count: int, *, window: int | None = None) -> Any:
        inputs = self.case.inputs(count, window or 8)
        return SimpleNamespace(inputs=inputs, to=lambda device: inputs)

    def output(self, model: Any, inputs: Any) -> Any:
        return model(**inputs)


@pytest.fixture
def unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "family_for", lambda model_type: None)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.usefixtures("unknown")
def test_a_guess_is_exact_and_loads(name: str) -> None:
    case = MODELS[name]
    model = case.build()
    structure = read_structure(model, Stub(case))  # type: ignore[arg-type]
    assert {"qk_coordinate", "vo_coordinate", "ffn_channel"} <= set(structure.kinds)
    assert structure.family.endswith("(guessed)")
    assert not [item for item in structure.left_alone if "disagree" in item.reason]
    selection = select(structure, "all kinds", "ratio 0.3")
    batch = case.inputs(2, 9)
    smaller = cut(model, structure, selection)
    with torch.no_grad(), gated(model, structure, gates_of(selection, structure)):
        expected = model(**batch)
    with torch.no_grad():
        found = smaller(**batch)
        assert furthest(found, expected, batch.get("attention_mask")) <= 1e-5
        again = case.build()
        again.config.prunepath = smaller.config.prunepath
        reshape_(again, again.config, again.config.prunepath)
        again.load_state_dict(smaller.state_dict())
        assert furthest(again(**batch), found) == 0


@pytest.mark.usefixtures("unknown")
def test_rotary_coordinates_are_found_in_pairs() -> None:
    case = MODELS["llama-untied"]
    structure = read_structure(case.build(), Stub(case))  # type: ignore[arg-type]
    (first, *_) = structure.of_kind("qk_coordinate")
    assert first.unit.names == ("kv", "pair")


@pytest.mark.usefixtures("unknown")
def test_a_group_that_disagrees_is_named_with_its_difference() -> None:
    case = CASES["qwen3"]
    structure = read_structure(case.build(), Stub(case))  # type: ignore[arg-type]
    assert "qk_coordinate" not in structure.kinds
    refused = [item for item in structure.left_alone if "disagree" in item.reason]
    assert any("qk_coordinate" in item.module for item in refused)


@pytest.mark.usefixtures("unknown")
def test_names_that_suggest_nothing() -> None:
    case = MODELS["bert"]
    model = case.build()
    model.encoder.layer = torch.nn.ModuleList([torch.nn.Linear(32, 32)])
    with pytest.raises(ModelError, match=r"none of its modules have names that suggest"):
        read_structure(model, Stub(case))  # type: ignore[arg-type]
