"""The verbs take whole sub-layers out: alone, and with the units inside the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import prunepath
from prunepath.api.search import search
from prunepath.errors import RequestError
from prunepath.structure.selection import sizes_by_place
from tests.api.fixtures import SEARCH, save_tiny

MIXED = ("ffn_channel", "vo_coordinate", "attention", "ffn")


@pytest.fixture(scope="module")
def biased_path(
    tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any, text_file: Path
) -> Path:
    """A path of a model of four layers whose consumers have biases."""
    shape = {"num_hidden_layers": 4, "attention_bias": True, "mlp_bias": True}
    folder = tmp_path_factory.mktemp("biased")
    model = save_tiny(folder / "model", tiny_tokenizer, **shape)
    search(model, output=folder / "path", data=text_file, **SEARCH)
    return folder / "path"


def gone(made: Any, path: Path) -> set[str]:
    """Places that were taken out whole."""
    structure = prunepath.SolutionPath.from_pretrained(path).structure
    sizes = sizes_by_place(structure, made.allocation.selection)
    return {place for place, found in sizes.items() if not any(found.values())}


@pytest.mark.usefixtures("no_fresh_process")
@pytest.mark.parametrize("kinds", [("attention", "ffn"), MIXED], ids=["depth", "both"])
@pytest.mark.parametrize("refit", ["sequential", "moments", "none"])
def test_sub_layers_go(
    refit: str, kinds: tuple[str, ...], tmp_path: Path, biased_path: Path
) -> None:
    made = prunepath.extract(
        biased_path, output=tmp_path / "small", ratio=0.3, kinds=kinds, refit=refit, multiple=4
    )
    assert made.allocation.reached <= made.allocation.limit
    assert (kinds == MIXED) or gone(made, biased_path)
    found = prunepath.inspect(tmp_path / "small")
    assert found.cost == made.allocation.cost, "counted anew from the files"
    assert ("held-out loss with" in made.refit) == (refit != "none")
    if refit != "none":
        assert made.refit["held-out loss with"] <= made.refit["held-out loss without"]


def test_what_a_sub_layer_still_says_is_repaired(biased_path: Path) -> None:
    plain, fitted = (
        prunepath.extract(biased_path, ratio=0.2, kinds=["ffn"], refit=refit)
        for refit in ("none", "moments")
    )
    assert gone(fitted, biased_path)
    for place in gone(fitted, biased_path):
        bias = f"{place}.down_proj.bias"
        before, after = (made.model.get_parameter(bias) for made in (plain, fitted))
        assert torch.equal(before, after) == (fitted.refit["strength"] == 0)


def test_a_bias_may_be_added_for_it(path_folder: Path) -> None:
    made = prunepath.extract(path_folder, ratio=0.2, kinds=["ffn"], refit="moments", bias=True)
    assert gone(made, path_folder)
    for place in gone(made, path_folder):
        linear = made.model.get_submodule(f"{place}.down_proj")
        assert linear.weight.numel() == 0
        assert linear.bias.abs().max() > 0


def test_a_fresh_process_finds_it(tmp_path: Path, biased_path: Path) -> None:
    made = prunepath.extract(
        biased_path, output=tmp_path / "small", ratio=0.3, kinds=["attention", "ffn"]
    )
    assert made.verification is not None
    assert made.verification.loader == "prunepath"
    assert made.verification.difference <= 1e-5


def test_uniform_refuses(path_folder: Path) -> None:
    with pytest.raises(RequestError, match="a layer without its attention is unlike the others"):
        prunepath.extract(path_folder, ratio=0.2, layout="uniform", kinds=["attention"])
