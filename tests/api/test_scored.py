"""Methods that score some kinds only, and orders that costs do not divide: end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import prunepath
from prunepath.allocation.steps import StepOptions, build_steps, default_kinds
from prunepath.api.search import search
from prunepath.path import SolutionPath
from tests.api.fixtures import SEARCH, save_tiny

FLAP: dict[str, Any] = {"repair": "bias", "metric": "wifv", "standardise": "zscore"}


@pytest.fixture(scope="module")
def residual_folder(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path, text_file: Path
) -> Path:
    folder = tmp_path_factory.mktemp("residual") / "path"
    search(model_folder, output=folder, data=text_file, method="residual", config=FLAP, **SEARCH)
    return folder


def test_the_path_holds_what_was_scored_and_names_the_rest(residual_folder: Path) -> None:
    path = SolutionPath.from_pretrained(residual_folder)
    kinds = ("vo_coordinate", "query_head", "kv_group", "attention", "ffn_channel", "ffn")
    assert path.structure.kinds == kinds
    assert default_kinds(path.structure, "per-layer") == ("vo_coordinate", "ffn_channel")
    assert default_kinds(path.structure, "uniform") == ("query_head", "kv_group", "ffn_channel")
    report = prunepath.inspect(residual_folder)
    assert tuple(kind.kind for kind in report.kinds) == kinds
    left = [item for item in report.structure.left_alone if "qk_coordinate" in item.module]
    assert len(left) == path.structure.num_layers
    assert {item.reason for item in left} == {
        "the method 'residual' scores only inputs of linear maps"
    }


@pytest.mark.usefixtures("no_fresh_process")
@pytest.mark.parametrize("refit", ["none", "sequential", "moments"])
@pytest.mark.parametrize("layout", ["per-layer", "uniform"])
def test_such_a_path_is_cut_in_both_layouts(
    layout: str, refit: str, residual_folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    made = prunepath.extract(
        residual_folder,
        ratio=0.3,
        layout=layout,
        multiple=1,
        floor=1,
        refit=refit,
        output=tmp_path / "small",
    )
    assert made.allocation.ratio >= 0.3
    assert made.verification is not None
    assert made.verification.difference <= made.verification.allowed
    # Rotary pairs are no units of this path: all of them are left.
    pairs = [
        module.rotary_pairs
        for module in made.model.modules()
        if isinstance(getattr(module, "rotary_pairs", None), torch.Tensor)
    ]
    assert all(kept.tolist() == [list(range(6))] * len(kept) for kept in pairs)
    assert bool(pairs) == (layout == "per-layer")


def test_coordinates_and_their_heads_are_cut_together(residual_folder: Path) -> None:
    kinds = ["vo_coordinate", "kv_group", "ffn_channel"]
    made = prunepath.extract(
        residual_folder, ratio=0.45, kinds=kinds, multiple=1, floor=1, refit="none"
    )
    assert torch.isfinite(made.model(torch.arange(12)[None]).logits).all()


@pytest.mark.parametrize("kind", ["Llama", "OPT"])
@pytest.mark.parametrize("layout", ["per-layer", "uniform"])
@pytest.mark.parametrize(("refit", "bias"), [("bias", False), ("moments", True)])
def test_biases_that_a_refit_adds_are_written_and_read_back(
    kind: str,
    layout: str,
    refit: str,
    bias: bool,
    tiny_tokenizer: Any,
    text_file: Path,
    tmp_path: Path,
) -> None:
    model = save_tiny(tmp_path / "model", tiny_tokenizer, kind)
    search(model, output=tmp_path / "path", data=text_file, method="residual", **SEARCH)
    made = prunepath.extract(
        tmp_path / "path",
        ratio=0.4,
        layout=layout,
        multiple=1,
        floor=0,
        refit=refit,
        bias=bias,
        output=tmp_path / "small",
    )
    assert made.verification is not None  # in a fresh process, and equal
    stock = kind != "Llama" and layout == "uniform" and made.verification.loader == "transformers"
    assert made.refit["kind"] == ("bias" if refit == "bias" else "moments with bias")
    counted = made.allocation.cost.params
    held = sum(parameter.numel() for parameter in made.model.parameters())
    assert held - counted == made.refit.get("numbers added", 0)
    assert held <= made.allocation.reached <= made.allocation.limit
    assert ("numbers added" in made.refit) == (kind == "Llama")
    assert stock or made.verification.loader == "prunepath"
    again = prunepath.load(tmp_path / "small")
    ids = torch.arange(20)[None]
    assert torch.equal(again(ids).logits, made.model(ids).logits)


def test_an_order_by_damage_is_not_divided_by_costs(residual_folder: Path) -> None:
    path = SolutionPath.from_pretrained(residual_folder)
    assert path.order == "damage"
    kinds = ("kv_group", "ffn_channel")
    steps = build_steps(path, StepOptions(kinds=kinds, multiple=1, floor=0))
    made = [
        float(path.damage[group.name][units].mean())
        for step in steps
        for group, units in step.removed
    ]
    assert (np.diff(made) >= 0).all()
    order = [
        (name, unit)
        for name, unit in path.removal_order
        if path.structure.groups_by_name[name].kind in kinds
    ]
    gone = [
        (group.name, int(unit)) for step in steps for group, units in step.removed for unit in units
    ]
    floorless = set(gone)
    assert gone == [pair for pair in order if pair in floorless]
