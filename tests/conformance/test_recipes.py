"""Every recipe x a decoder with grouped queries, an encoder, a vision model: by the verbs, budgets
hold, orders nest, the cut model is the gated one, seeds repeat, interrupted searches go on."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import prunepath
from prunepath.allocation.budget import Budget
from prunepath.api.workshop import Workshop
from prunepath.path import SolutionPath
from prunepath.recipes import RECIPES
from prunepath.structure.gates import gated, gates_of
from prunepath.structure.selection import Selection
from prunepath.surgery.cut import cut
from tests.api.fixtures import SEARCH, save_tiny
from tests.listening import Interrupting
from tests.tasks.test_every_task import SEARCH as SAMPLES
from tests.tasks.test_every_task import image_classifier, text_classifier

MODELS = ("decoder", "encoder", "vision")
RATIOS = (0.2, 0.4)
# The sizes of a published run, made small.
SHORT: dict[str, dict[str, Any]] = {
    "adapt-pruner": {"steps": 4, "amplitude": 0.2},
    "optin": {"probes": 2},
}

every_case = pytest.mark.parametrize(
    ("recipe", "model"), [(recipe, model) for recipe in RECIPES for model in MODELS]
)


class Ground:
    """Models and data by name, and the paths that were searched on them; all made once."""

    def __init__(self, folder: Path, tokenizer: Any, text: str) -> None:
        self._folder, self._tokenizer, self._text = folder, tokenizer, text
        self.made = cache(self._made)
        self.searched = cache(self._searched)

    def _made(self, model: str) -> tuple[Path, dict[str, Any]]:
        where = self._folder / model
        if model == "decoder":
            file = self._folder / "text.txt"
            file.write_text(self._text, encoding="utf-8")
            return save_tiny(where / "dense", self._tokenizer), {"data": file, **SEARCH}
        build = text_classifier if model == "encoder" else image_classifier
        dense, data = build(where / "dense")
        return dense, {"data": data, **SAMPLES}

    def search(self, recipe: str, model: str, name: str, **more: Any) -> SolutionPath:
        dense, words = self.made(model)
        config = SHORT.get(recipe, {})
        output = self._folder / model / recipe / name
        return prunepath.search(dense, output=output, method=recipe, config=config, **words, **more)

    def _searched(self, recipe: str, model: str) -> SolutionPath:
        return self.search(recipe, model, "path")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any, tiny_text: str) -> Ground:
    return Ground(tmp_path_factory.mktemp("recipes"), tiny_tokenizer, tiny_text)


def opened(path: SolutionPath) -> Workshop:
    assert path.folder is not None
    shop = Workshop(path.folder, multiple=2, floor=2)  # so small models have few widths
    shop.open()
    return shop


@every_case
def test_budgets_hold_and_orders_nest(recipe: str, model: str, ground: Ground) -> None:
    shop = opened(ground.searched(recipe, model))
    selections: list[Selection] = []
    for ratio in RATIOS:
        made = shop.make(Budget.from_ratio(ratio))
        allocation = made.allocation
        assert allocation.reached <= allocation.limit
        counted = sum(p.numel() for p in made.model.parameters())
        assert counted <= allocation.limit, "biases of a repair included"
        assert counted == allocation.cost.params + made.refit.get("numbers added", 0)
        selections.append(allocation.selection)
        expected = cut(shop.dense, shop.path.structure, allocation.selection)
        samples = shop.task.dummy(expected, 2)
        gates = gates_of(allocation.selection, shop.path.structure)
        with torch.no_grad():
            own = shop.task.output(expected, samples.to("cpu"))
            with gated(shop.dense, shop.path.structure, gates):
                wanted = shop.task.output(shop.dense, samples.to("cpu"))
        torch.testing.assert_close(own, wanted, atol=1e-5, rtol=1e-5)
    if shop.options.rule == "order" and shop.rearrange == "none":
        assert selections[1].issubset(selections[0], shop.path.structure)


@every_case
def test_the_same_seed_gives_the_same_sizes(recipe: str, model: str, ground: Ground) -> None:
    first = ground.searched(recipe, model)
    second = ground.search(recipe, model, "again")
    assert first.fingerprint == second.fingerprint
    budget = Budget.from_ratio(RATIOS[1])
    one, two = (opened(path).make(budget).allocation for path in (first, second))
    assert one.cost == two.cost
    for name, keep in one.selection.keep.items():
        assert (two.selection.keep[name] == keep).all()


@every_case
def test_an_interrupted_search_goes_on(recipe: str, model: str, ground: Ground) -> None:
    whole = ground.searched(recipe, model)
    listener = Interrupting()
    ground.search(recipe, model, "counted", progress=listener)
    assert all(listener.notes)
    stop = Interrupting(max(1, round(0.6 * listener.count)) - 1)
    with pytest.raises(KeyboardInterrupt):
        ground.search(recipe, model, "interrupted", progress=stop)
    assert all(stop.notes)
    assert ground.search(recipe, model, "interrupted").fingerprint == whole.fingerprint
