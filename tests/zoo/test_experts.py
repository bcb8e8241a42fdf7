"""Experts apart and together: the same answers, config sizes where they fit, files that load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import prunepath
from prunepath.checkpoint.save import is_stock, save_model
from prunepath.data.samples import Samples
from prunepath.statistics.collect import Wanted, recording
from prunepath.statistics.sums import Statistics
from prunepath.structure.cost import cost_of
from prunepath.structure.discover import discover
from prunepath.structure.gates import frozen, gated, gates_of
from prunepath.structure.selection import Selection, everything
from prunepath.structure.units import Structure
from prunepath.surgery.cut import cut
from prunepath.surgery.experts import Experts, fuse_experts_, unfuse_experts_
from tests.conformance.selections import select
from tests.zoo.build import furthest, text
from tests.zoo.models.experts import CHOOSY, OPTIONS, stock

TOKENS = 12
every_model = pytest.mark.parametrize("name", [name for name in OPTIONS if "choosy" not in name])


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.no_grad():
        yield


def fused(name: str) -> Any:
    """A model whose router sends every token to two of four experts."""
    return stock(**{**OPTIONS[name], **CHOOSY})


def apart(name: str) -> Any:
    model = fused(name)
    assert unfuse_experts_(model)
    return model


def read(model: Any) -> Structure:
    return discover(model, probe=lambda length: model(**text(1, length)))


def uniform(structure: Structure, width: int) -> Selection:
    """Every expert keeps that many channels."""
    rng = np.random.default_rng(0)
    keep = dict(everything(structure).keep)
    for group in structure.of_kind("expert_channel"):
        keep[group.name] = np.zeros(group.num_units, dtype=np.bool_)
        keep[group.name][rng.permutation(group.num_units)[:width]] = True
    return Selection(keep)


@every_model
def test_apart_and_together_answer_the_same(name: str) -> None:
    batch, plain = text(3, TOKENS), fused(name)
    names = set(plain.state_dict())
    expected = plain(**batch)
    model = apart(name)
    assert furthest(model(**batch), expected) < 1e-6
    assert not unfuse_experts_(model)
    assert fuse_experts_(model)
    assert set(model.state_dict()) == names
    assert furthest(model(**batch), expected) == 0


@every_model
def test_gated_equals_cut_with_a_choosy_router(name: str) -> None:
    model, batch = apart(name), text(3, TOKENS)
    structure = read(model)
    for what in ("ratio 0.3", "one group emptied"):
        selection = select(structure, "all kinds", what)
        with gated(model, structure, gates_of(selection, structure)):
            expected = model(**batch)
        found = cut(model, structure, selection)(**batch)
        assert furthest(found, expected, batch["attention_mask"]) <= 1e-5


def macs(model: Any) -> float:
    with FlopCounterMode(display=False) as counter:
        model(**text(1, TOKENS))
    return float(counter.get_total_flops()) / 2


@every_model
def test_macs_do_not_depend_on_whom_the_router_chooses(name: str) -> None:
    model = apart(name)
    model.set_attn_implementation("eager")
    structure = read(model)
    dense = cost_of(structure, everything(structure), TOKENS).macs
    assert dense == pytest.approx(macs(model), rel=0.01)
    even = uniform(structure, 8)
    assert cost_of(structure, even, TOKENS).macs == pytest.approx(
        macs(cut(model, structure, even)), rel=0.01
    )


@every_model
def test_equally_narrow_experts_need_no_prunepath(name: str, tmp_path: Path) -> None:
    import transformers

    model, batch = apart(name), text(3, TOKENS)
    structure = read(model)
    assert len({group.series for group in structure.of_kind("expert_channel")}) == 1
    smaller: Any = cut(model, structure, uniform(structure, 8))
    expected = smaller(**batch)
    assert is_stock(smaller)
    save_model(smaller, None, tmp_path)
    assert not any(isinstance(module, Experts) for module in smaller.modules())
    loaded = getattr(transformers, OPTIONS[name]["architecture"]).from_pretrained(tmp_path)
    assert furthest(loaded(**batch), expected) < 1e-6


@every_model
@pytest.mark.parametrize("kind", ["vo_coordinate", "expert_channel", "all kinds"])
def test_what_was_saved_loads(name: str, kind: str, tmp_path: Path) -> None:
    model, batch = apart(name), text(3, TOKENS)
    structure = read(model)
    smaller: Any = cut(model, structure, select(structure, kind, "one group emptied"))
    expected = smaller(**batch)
    assert not is_stock(smaller)
    save_model(smaller, None, tmp_path)
    loaded: Any = prunepath.load(tmp_path)
    assert furthest(loaded(**batch), expected) < 1e-6


def test_an_expert_that_is_sent_nothing_has_sums_of_zero() -> None:
    model = stock(**{**OPTIONS["mixtral"], **CHOOSY, "num_experts_per_tok": 1})
    unfuse_experts_(model)
    structure, sums, batch = read(model), Statistics(), text(1, 2, mask=False)
    with torch.enable_grad(), frozen(model), recording(model, structure, Wanted(), sums) as told:
        told.begin(Samples(inputs=batch))
        model(**batch).logits.square().sum().backward()
    groups = structure.of_kind("expert_channel")
    rows = {group.name: float(sums.rows[group.consumer]) for group in groups}
    assert 0.0 in rows.values()
    for group in groups:
        assert (float(sums.mean("fisher", group.name).sum()) == 0) == (rows[group.name] == 0)
        assert sums.mean("moments", group.consumer).isfinite().all()
        assert sums.mean("output_gradients", group.consumer).isfinite().all()
