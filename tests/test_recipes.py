"""Recipes: files, names with words after a plus, and who wins where user and recipe differ."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prunepath import registry
from prunepath.api.recipes import cost_class, find_recipe, listed_recipes, needs, settled
from prunepath.errors import RequestError
from prunepath.recipes import RECIPES, Recipe

FULL = Recipe(
    name="mine",
    method="spp",
    summary="everything: said, twice",
    paper="Somebody 2030, arXiv 3001.00001",
    config={"rounds": 4, "curvature": "fisher"},
    layout="uniform",
    kinds=("ffn_channel", "query_head"),
    multiple=4,
    floor=0,
    refit="moments",
    bias=True,
)


@pytest.mark.parametrize("name", list(RECIPES))
def test_what_ships_is_whole_and_survives_both_formats(name: str, tmp_path: Path) -> None:
    recipe = find_recipe(name)
    assert recipe.name == name
    assert recipe.summary
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    for suffix in (".yaml", ".json"):
        recipe.save(tmp_path / f"recipe{suffix}")
        assert find_recipe(tmp_path / f"recipe{suffix}") == recipe


def test_every_field_makes_the_round_trip(tmp_path: Path) -> None:
    for suffix in (".yaml", ".yml", ".json"):
        FULL.save(tmp_path / f"mine{suffix}")
        assert find_recipe(str(tmp_path / f"mine{suffix}")) == FULL
    assert FULL.extraction["floor"] == 0, "zero is something said"


def test_what_is_left_open_is_not_in_the_file() -> None:
    assert Recipe(name="a", method="b").to_dict() == {"name": "a", "method": "b"}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("name: a\nmethod: spp\nrefitt: none", "unknown key 'refitt'; did you mean 'refit'[?]"),
        ("name: a\nmethod: spp\nzzz: 1", "unknown key 'zzz'. Known: name, method"),
        ("method: spp", "has no 'name'; a recipe needs a name and a method"),
        ("name: ''\nmethod: spp", "a recipe needs a name and a method"),
        ("name: a/b\nmethod: spp", "is called 'a/b'; use letters, digits and any of"),
        ("- a\n- b", "holds a list; a recipe is a mapping"),
        ("a: [", "is not YAML"),
        ("name: a\nmethod: spp\nmultiple: many", "field 'multiple' of a recipe is 'many'; give a"),
        ("name: a\nmethod: spp\nmultiple: true", "field 'multiple' of a recipe is True"),
        ("name: a\nmethod: spp\nbias: 1", "field 'bias' of a recipe is 1; give a bool"),
        ("name: a\nmethod: spp\nkinds: head", "field 'kinds' of a recipe is 'head'; give a list"),
        ("name: a\nmethod: sppp", "the recipe 'a': unknown method 'sppp'; did you mean 'spp'"),
        ("name: a\nmethod: spp\nconfig: {round: 3}", "the recipe 'a': this method has no setting"),
        ("name: a\nmethod: spp\nlayout: even", "the recipe 'a': unknown layout 'even'"),
        ("name: a\nmethod: spp\nrefit: best", "the recipe 'a': unknown refit 'best'"),
        ("name: a\nmethod: spp\nbias: true", "the recipe 'a': biases are fitted from moments"),
    ],
    ids=str,
)
def test_a_file_that_is_no_recipe_is_refused(text: str, match: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(text)
    with pytest.raises(RequestError, match=match):
        find_recipe(file)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"there is no recipe file .*none\.yaml; give a"):
        find_recipe(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(RequestError, match="is not text; give a .yaml file"):
        find_recipe(tmp_path / "binary.yaml")


def test_names_of_recipes_and_methods_suggest_each_other() -> None:
    with pytest.raises(RequestError, match="unknown method 'fischer'; did you mean 'fisher'"):
        find_recipe("fischer")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("taylor", {"refit": "none"}),
        ("taylor+sequential", {"refit": "sequential"}),
        ("spp", {}),
        ("spp+uniform", {"layout": "uniform"}),
        ("spp+none+uniform", {"layout": "uniform", "refit": "none"}),
        ("fisher+moments+bias", {"refit": "moments", "bias": True}),
    ],
)
def test_words_after_a_plus(name: str, said: dict[str, Any]) -> None:
    found = find_recipe(name)
    assert found.extraction == said
    assert found.name == name
    assert found.method == name.partition("+")[0]


def test_an_unknown_word_lists_what_there_is() -> None:
    with pytest.raises(
        RequestError, match=r"unknown word 'best' after 'spp\+'; there stands a refit"
    ):
        find_recipe("spp+best")
    assert find_recipe("spp+bias").refit == "bias"
    assert find_recipe("spp+moments+bias").bias is True


@pytest.mark.parametrize(
    ("name", "cost", "need"),
    [
        ("random", "data-free", "nothing"),
        ("magnitude+sequential", "forward-only", "samples"),
        ("fisher", "gradients", "samples"),
        ("magnitude+rearrange", "gradients", "samples"),
        ("kwon", "gradients", "samples"),
        ("magnitude+swaps", "gradients", "samples"),
        ("icbs", "gradients", "samples with labels"),
        ("adapt-pruner", "search", "samples with labels"),
        ("global-magnitude", "data-free", "nothing"),
        ("optin", "search", "samples"),
        ("taylor", "gradients", "samples with labels"),
    ],
)
def test_cost_class_and_needs(name: str, cost: str, need: str) -> None:
    recipe = find_recipe(name)
    assert (cost_class(recipe), needs(recipe)) == (cost, need)


def test_a_search_on_the_real_loss_is_a_search() -> None:
    assert cost_class(replace(find_recipe("spp"), config={"dynamics": "coupled"})) == "search"


def test_who_wins() -> None:
    recipe = {"name": "r", "layout": "uniform", "refit": "moments", "bias": True, "multiple": 8}
    options, taken = settled(recipe, {})
    assert (options["layout"], options["refit"], options["bias"]) == ("uniform", "moments", True)
    assert taken == {"layout": "uniform", "refit": "moments", "bias": True}, "8 is the usual"
    options, taken = settled(recipe, {"layout": "per-layer", "refit": "none"})
    assert (options["layout"], options["refit"], options["bias"]) == ("per-layer", "none", False)
    assert taken == {}
    assert settled({}, {})[0]["refit"] == "sequential"


def test_a_package_adds_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RECIPES, "_targets", dict(RECIPES._targets))
    points = [
        importlib.metadata.EntryPoint(name, f"tests.test_recipes:{target}", "prunepath.recipes")
        for name, target in (("mine", "FULL"), ("broken", "cost_class"))
    ]
    monkeypatch.setattr(
        registry, "entry_points", lambda group: points if group == "prunepath.recipes" else []
    )
    assert find_recipe("mine") == FULL
    with pytest.raises(RequestError, match="entry point 'broken' .* must name a Recipe"):
        find_recipe("broken")


def test_a_method_without_a_recipe_leaves_everything_open(monkeypatch: pytest.MonkeyPatch) -> None:
    from prunepath.methods.baselines import Magnitude
    from prunepath.methods.method import METHODS

    monkeypatch.setattr(METHODS, "_targets", {**METHODS._targets, "theirs": Magnitude})
    found = find_recipe("theirs")
    assert (found.method, found.extraction) == ("theirs", {})
    assert "theirs" in [recipe.name for recipe in listed_recipes()]
