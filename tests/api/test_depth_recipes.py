"""The recipes of depth by the verbs: search, extract, read back; nothing has to be named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import prunepath
from prunepath.api.recipes import cost_class, find_recipe
from prunepath.api.search import search
from prunepath.errors import RequestError
from prunepath.structure.selection import is_gone
from tests.api.fixtures import SEARCH, save_tiny

RECIPES = {
    "shortgpt": "forward-only",
    "angular-blocks": "forward-only",
    "sublayer-cosine": "forward-only",
    "finercut": "search",
}
every_recipe = pytest.mark.parametrize("name", RECIPES)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """A model of four layers whose consumers have biases."""
    folder = tmp_path_factory.mktemp("depth") / "model"
    return save_tiny(folder, tiny_tokenizer, num_hidden_layers=4, attention_bias=True)


@every_recipe
def test_what_they_cost_is_listed(name: str) -> None:
    recipe = find_recipe(name)
    assert cost_class(recipe) == RECIPES[name]
    assert recipe.paper
    assert recipe.extraction == {"layout": "per-layer", "refit": "none"}


@pytest.mark.usefixtures("no_fresh_process")
@every_recipe
def test_a_recipe_cuts_whole_sub_layers(
    name: str, tmp_path: Path, model: Path, text_file: Path
) -> None:
    path = search(model, output=tmp_path / "path", data=text_file, method=name, **SEARCH)
    assert path.order == "damage"
    again = prunepath.SolutionPath.from_pretrained(tmp_path / "path")
    assert again.together == path.together
    assert bool(again.together) == (name in ("shortgpt", "angular-blocks"))
    made = prunepath.extract(tmp_path / "path", output=tmp_path / "small", ratio=0.3)
    assert made.allocation.reached <= made.allocation.limit
    assert made.refit["kind"] == "none"
    structure, selection = again.structure, made.allocation.selection
    gone = [p for p in structure.places if is_gone(structure.groups_by_place[p.path], selection)]
    assert gone
    if again.together:
        assert len(gone) == 2 * len({place.layer_path for place in gone})
    left = made.allocation.cost.kv_bytes_per_token / made.allocation.dense.kv_bytes_per_token
    attentions = sum(place.path.endswith("self_attn") for place in gone)
    # Its cache goes with an attention, but for one coordinate that goes on counting tokens.
    assert 1 - attentions / 4 <= left <= 1 - attentions / 4 * 0.95
    assert prunepath.inspect(tmp_path / "small").cost == made.allocation.cost
    with pytest.raises(RequestError, match="'uniform' keeps all layers the same size"):
        prunepath.extract(tmp_path / "path", ratio=0.3, layout="uniform")


def test_a_comparison_weighs_them_beside_others(
    tmp_path: Path, model: Path, text_file: Path
) -> None:
    rows = prunepath.compare(
        model,
        output=tmp_path / "table",
        data=text_file,
        evaluation_data=["other words stand here, in another order than there. " * 60],
        methods=["shortgpt", "sublayer-cosine", "fisher"],
        ratios=[0.3],
        evaluation_windows=2,
        **SEARCH,
    )
    own = search(model, output=tmp_path / "own", data=text_file, method="shortgpt", **SEARCH)
    shared = prunepath.SolutionPath.from_pretrained(tmp_path / "table" / "paths" / "shortgpt")
    assert shared.removal_order == own.removal_order
    by_name = {row.recipe: row for row in rows}
    assert by_name["shortgpt"].ratio >= 0.3
    assert all(row.quality > 1 for row in rows if row.quality is not None)
