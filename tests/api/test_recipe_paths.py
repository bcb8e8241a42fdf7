"""A path remembers its recipe, and extractions follow it unless the user says otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

import prunepath
from prunepath.api.search import search
from prunepath.errors import RequestError
from prunepath.recipes import Recipe
from tests.api.fixtures import SEARCH

T = TypeVar("T")

MINE = Recipe(
    name="mine",
    method="spp",
    config={"rounds": 4},
    layout="uniform",
    kinds=("ffn_channel",),
    multiple=4,
    floor=4,
    refit="moments",
    bias=True,
)


class Notes:
    """A listener that keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        return iter(items)

    def note(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, text_file: Path) -> Path:
    """A path searched by a recipe file."""
    folder = tmp_path_factory.mktemp("recipe")
    MINE.save(folder / "mine.yaml")
    search(
        model_folder,
        output=folder / "path",
        data=text_file,
        recipe=str(folder / "mine.yaml"),
        config={"curvature": "fisher"},
        **SEARCH,
    )
    return folder / "path"


def test_the_path_remembers_its_recipe(mine: Path, path_folder: Path) -> None:
    made = prunepath.SolutionPath.from_pretrained(mine).provenance
    assert Recipe.from_dict(made.recipe) == MINE
    assert made.method == "spp"
    assert made.method_config["rounds"] == 4, "of the recipe"
    assert made.method_config["curvature"] == "fisher", "of the user"
    usual = prunepath.SolutionPath.from_pretrained(path_folder).provenance
    assert usual.recipe["name"] == "spp"


def test_an_extraction_follows_the_recipe_and_says_so(mine: Path) -> None:
    notes = Notes()
    made = prunepath.extract(mine, ratio=0.2, progress=notes)
    options = made.allocation.options
    assert (options.layout, options.kinds) == ("uniform", ("ffn_channel",))
    assert (options.multiple, options.floor) == (4, 4)
    assert made.refit["kind"] == "moments with bias"
    assert made.taken == {**MINE.extraction, "kinds": ["ffn_channel"]}
    assert notes.said[0] == (
        "taken from the recipe 'mine': layout uniform, kinds ffn_channel, multiple 4, floor 4, "
        "refit moments, bias True"
    )


def test_what_the_user_says_wins(mine: Path) -> None:
    made = prunepath.extract(
        mine, ratio=0.1, layout="per-layer", kinds=["vo_coordinate"], multiple=2, refit="none"
    )
    options = made.allocation.options
    assert (options.layout, options.kinds) == ("per-layer", ("vo_coordinate",))
    assert (options.multiple, options.floor) == (2, 4)
    assert made.refit == {"kind": "none"}
    assert made.taken == {"floor": 4}


def test_the_usual_recipe_settles_nothing(path_folder: Path) -> None:
    notes = Notes()
    made = prunepath.extract(path_folder, ratio=0.2, progress=notes)
    assert made.taken == {}
    assert made.refit["kind"] == "sequential"
    assert not any("recipe" in note for note in notes.said)


def test_a_curve_follows_the_recipe(tmp_path: Path, mine: Path, text_file: Path) -> None:
    wish: dict[str, Any] = {"data": text_file, "windows": 1, "window": 32, "points": [0.1]}
    rows = prunepath.curve(mine, output=tmp_path / "a", **wish)
    assert rows[1].name == "uniform 0.1"
    assert rows[1].note == "refit moments with bias"
    rows = prunepath.curve(mine, output=tmp_path / "b", layouts=["per-layer"], refit="none", **wish)
    assert (rows[1].name, rows[1].note) == ("per-layer 0.1", "refit none")


def test_a_published_baseline_is_not_repaired(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    wish: dict[str, Any] = {"data": text_file, **SEARCH}
    search(model_folder, output=tmp_path / "published", method="magnitude", **wish)
    search(model_folder, output=tmp_path / "ours", method="magnitude+moments", **wish)
    published = prunepath.extract(tmp_path / "published", ratio=0.2)
    ours = prunepath.extract(tmp_path / "ours", ratio=0.2)
    assert published.refit["kind"] == "none"
    assert ours.refit["kind"] == "moments"
    asked = prunepath.extract(tmp_path / "published", ratio=0.2, refit="moments")
    assert asked.refit == ours.refit


def test_a_method_and_a_recipe_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="method 'spp' and recipe 'mine.yaml' were given; give"):
        search("model", output=tmp_path / "path", method="spp", recipe="mine.yaml")
