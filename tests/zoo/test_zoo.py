"""Every model of the zoo x every unit kind x every selection: what is cut equals what is gated.

A model joins by one line in `tests/zoo/models`.
"""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from prunepath.allocation.steps import LAYOUTS, default_kinds
from prunepath.checkpoint.load import load
from prunepath.checkpoint.save import save_model
from prunepath.structure.cost import cost_of
from prunepath.structure.discover import discover
from prunepath.structure.encoding import structure_from_dict, structure_to_dict
from prunepath.structure.gates import frozen, gated, gates_of, new_gates
from prunepath.structure.selection import Selection, everything
from prunepath.structure.units import Structure
from prunepath.surgery.cut import cut
from prunepath.surgery.proof import prove
from tests.conformance.selections import SELECTIONS, changes_something, select
from tests.zoo.build import furthest
from tests.zoo.models import CASES

TOKENS = 10
TOLERANCE = 1e-5

every_model = pytest.mark.parametrize("name", CASES)
every_case = pytest.mark.parametrize(
    ("name", "kind", "what"),
    [
        pytest.param(name, kind, what, id=f"{name}-{kind}-{what}".replace(" ", "_"))
        for name, case in CASES.items()
        for kind, what in product((*case.kinds, *case.sublayers, "all kinds"), SELECTIONS)
        if (what != "ratio 0" or kind == "all kinds") and changes_something(kind, what)
    ],
)


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


@cache
def dense(name: str) -> Any:
    """The dense model, shared by all tests: read it, never write it."""
    return CASES[name].build()


@cache
def structure_of(name: str) -> Structure:
    model, inputs = dense(name), CASES[name].inputs
    return discover(model, probe=lambda length: model(**inputs(1, length)))


def smaller(name: str, kind: str, what: str) -> tuple[Any, Selection]:
    structure = structure_of(name)
    selection = select(structure, kind, what)
    return cut(dense(name), structure, selection), selection


@every_model
def test_the_kinds_are_found(name: str) -> None:
    assert set(structure_of(name).kinds) == {*CASES[name].kinds, *CASES[name].sublayers}
    again = structure_from_dict(structure_to_dict(structure_of(name)))
    assert again == structure_of(name)
    for layout in LAYOUTS:  # sub-layers go where they are asked for
        assert set(default_kinds(again, layout)) & set(CASES[name].kinds)
        assert not set(default_kinds(again, layout)) & set(CASES[name].sublayers)


@every_case
def test_the_cut_model_is_the_gated_one_and_costs_what_was_counted(
    name: str, kind: str, what: str
) -> None:
    structure, batch = structure_of(name), CASES[name].inputs(3, TOKENS)
    model, selection = smaller(name, kind, what)
    with gated(dense(name), structure, gates_of(selection, structure)):
        expected = dense(name)(**batch)
    assert furthest(model(**batch), expected, batch.get("attention_mask")) <= TOLERANCE
    cost = cost_of(structure, selection, TOKENS)
    assert cost.params == sum(p.numel() for p in model.parameters())
    assert cost.macs == pytest.approx(measured_macs(name, model), rel=0.01)


def measured_macs(name: str, model: Any) -> float:
    """What torch's counter says of one sample."""
    if any(place.runtime for place in structure_of(name).places):
        model.set_attn_implementation("eager")  # a compact module fills up for fused kernels
    with frozen(model), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**CASES[name].inputs(1, TOKENS))
    return float(counter.get_total_flops() / 2)


@every_model
def test_every_kind_shows(name: str) -> None:
    batch = CASES[name].inputs(2, TOKENS)
    for kind in (*CASES[name].kinds, *CASES[name].sublayers):
        model, _ = smaller(name, kind, "one group emptied")
        found = furthest(model(**batch), dense(name)(**batch), batch.get("attention_mask"))
        assert found > 1e-3, kind


@every_model
def test_nothing_removed_is_bit_equal(name: str) -> None:
    structure, batch = structure_of(name), CASES[name].inputs(2, TOKENS)
    plain = dense(name)(**batch)
    with gated(dense(name), structure, new_gates(structure)):
        assert furthest(dense(name)(**batch), plain) == 0
    assert furthest(cut(dense(name), structure, everything(structure))(**batch), plain) == 0


@every_model
def test_the_proof_passes(name: str) -> None:
    batch = CASES[name].inputs(2, TOKENS)
    before = {key: value.clone() for key, value in dense(name).state_dict().items()}
    proof = prove(dense(name), structure_of(name), lambda: dense(name)(**batch))
    assert not proof.failed
    assert proof.structure == structure_of(name)
    after = dense(name).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def saved_params(model: Any, folder: Path) -> int:
    """Parameters in a saved file."""
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        saved = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    # Buffers that are saved (running statistics, position tables) are no parameters, also where
    # a family saves under older names.
    buffers = {key for key, _ in model.named_buffers()}
    params = sum(
        tensor.numel()
        for key, tensor in saved.items()
        if key not in buffers and not key.endswith("_positions")
    )
    # Sinusoidal tables of some families are parameters that are computed and not saved.
    unsaved = getattr(model, "_keys_to_ignore_on_save", None) or ()
    named = dict(model.named_parameters())
    return params + sum(p.numel() for k, p in named.items() if k in unsaved and k not in saved)


@every_model
@pytest.mark.parametrize("what", ["ratio 0.3", "all emptied"])
def test_what_is_saved_comes_back(name: str, what: str, tmp_path: Path) -> None:
    model, _ = smaller(name, "all kinds", what)
    save_model(model, None, tmp_path)
    assert saved_params(model, tmp_path) == sum(p.numel() for p in model.parameters())
    loaded, batch = load(tmp_path), CASES[name].inputs(2, TOKENS)
    for key in getattr(model, "_keys_to_ignore_on_save", None) or ():
        # Sinusoidal tables are computed anew, and the zoo fills in other numbers.
        loaded.get_parameter(key).copy_(model.get_parameter(key))
    assert furthest(loaded(**batch), model(**batch), batch.get("attention_mask")) <= TOLERANCE


@every_model
def test_a_cut_model_can_be_cut_again(name: str) -> None:
    model, _ = smaller(name, "all kinds", "ratio 0.3")
    batch = CASES[name].inputs(3, TOKENS)
    structure = discover(model, probe=lambda length: model(**CASES[name].inputs(1, length)))
    selection = select(structure, "all kinds", "ratio 0.3", seed=1)
    with gated(model, structure, gates_of(selection, structure)):
        expected = model(**batch)
    again = cut(model, structure, selection)
    assert furthest(again(**batch), expected, batch.get("attention_mask")) <= TOLERANCE
    assert cost_of(structure, selection, TOKENS).params == sum(
        p.numel() for p in again.parameters()
    )


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.generates])
@pytest.mark.parametrize("what", SELECTIONS)
def test_generate_equals_a_run_without_cache(name: str, what: str) -> None:
    model, _ = smaller(name, "all kinds", what)
    batch = CASES[name].inputs(1, TOKENS)
    options = {"max_new_tokens": 4, "do_sample": False, "min_new_tokens": 4}
    with_cache = model.generate(**batch, **options)
    assert torch.equal(with_cache, model.generate(**batch, **options, use_cache=False))
