"""`extract` by the other rule, rearranged and tuned: what is chosen among units of one path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import prunepath
from prunepath.api.repair import REFITS
from prunepath.api.search import search
from prunepath.errors import PathFileError, RequestError
from prunepath.path import SolutionPath
from tests.api.fixtures import SEARCH, save_tiny
from tests.api.test_extract import logits_of


def test_the_rule_knapsack_keeps_more_damage(path_folder: Path) -> None:
    wish: dict[str, Any] = {"macs": "80%", "multiple": 1, "floor": 0, "refit": "none"}
    kinds = ["kv_group", "ffn_channel"]
    order = prunepath.extract(path_folder, kinds=kinds, **wish)
    made = prunepath.extract(path_folder, rule="knapsack", **wish)
    assert made.allocation.options.kinds == tuple(kinds)
    assert made.allocation.reached <= made.allocation.limit
    kept = made.allocation.damage_kept
    assert kept["knapsack"] >= kept["order"] == order.allocation.damage_kept["order"]
    assert set(order.allocation.damage_kept) == {"order"}


@pytest.mark.parametrize("refit", REFITS)
def test_rearranged_models_cost_the_same(refit: str, path_folder: Path) -> None:
    plain = prunepath.extract(path_folder, ratio=0.3, refit=refit, multiple=1)
    made = prunepath.extract(path_folder, ratio=0.3, refit=refit, multiple=1, rearrange=True)
    assert plain.rearranged == {}
    assert made.rearranged["swaps"] > 0
    assert made.rearranged["damage after"] < made.rearranged["damage before"]
    assert made.allocation.cost == plain.allocation.cost
    assert made.refit["kind"] == refit
    assert sum(p.numel() for p in made.model.parameters()) == (
        made.allocation.cost.params + made.refit.get("numbers added", 0)
    )
    assert not torch.equal(logits_of(made.model), logits_of(plain.model))


def test_gate_gradients_are_read_once_for_all_sizes(
    path_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunepath.allocation.budget import Budget
    from prunepath.api.workshop import Workshop
    from prunepath.statistics import gate_rows as module

    asked: list[set[str]] = []
    read = module.gate_rows

    def counted(*args: Any, **how: Any) -> Any:
        asked.append({group.name for group in args[4]})
        return read(*args, **how)

    monkeypatch.setattr(module, "gate_rows", counted)
    shop = Workshop(path_folder, refit="none", rearrange=True)
    shop.open()
    for ratio in (0.3, 0.3, 0.2):
        shop.make(Budget.from_ratio(ratio))
    assert asked
    assert sum(map(len, asked)) == len(set().union(*asked)), "some group was read twice"


@pytest.mark.parametrize("kinds", [None, ["kv_group", "ffn_channel"]])
def test_swapped_models_cost_the_same_and_come_nearer(
    kinds: list[str] | None, path_folder: Path
) -> None:
    wish: dict[str, Any] = {"ratio": 0.3, "refit": "none", "multiple": 1, "kinds": kinds}
    plain = prunepath.extract(path_folder, **wish)
    made = prunepath.extract(path_folder, rearrange="swaps", **wish)
    found = made.rearranged
    assert found["swaps"] > 0
    assert found["damage after"] <= found["damage before"]
    assert found["distance after"] < found["distance before"]
    assert made.allocation.cost == plain.allocation.cost
    made.allocation.selection.validate(SolutionPath.from_pretrained(path_folder).structure)
    again = prunepath.extract(path_folder, rearrange="swaps", **wish)
    assert torch.equal(logits_of(made.model), logits_of(again.model))
    assert again.rearranged == found


def test_swaps_that_do_not_help_are_taken_back(
    path_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measured distance decides, whatever the model of the loss says."""
    from prunepath.statistics.gated_model import GatedModel

    distances = iter([1.0, *[2.0] * 100])
    monkeypatch.setattr(GatedModel, "distance", lambda *args: next(distances))
    wish: dict[str, Any] = {"ratio": 0.3, "refit": "none", "multiple": 1}
    made = prunepath.extract(path_folder, rearrange="swaps", **wish)
    assert made.rearranged["swaps"] == 0
    assert made.rearranged["distance after"] == made.rearranged["distance before"] == 1.0
    plain = prunepath.extract(path_folder, **wish)
    assert torch.equal(logits_of(made.model), logits_of(plain.model))


def test_older_and_unknown_words_for_a_rearrangement(path_folder: Path) -> None:
    wish: dict[str, Any] = {"ratio": 0.2, "refit": "none", "multiple": 1}
    old = prunepath.extract(path_folder, rearrange=True, **wish)
    new = prunepath.extract(path_folder, rearrange="kwon", **wish)
    assert torch.equal(logits_of(old.model), logits_of(new.model))
    for off in (False, "none"):
        assert prunepath.extract(path_folder, rearrange=off, **wish).rearranged == {}
    with pytest.raises(RequestError, match="unknown rearrangement 'all'; use kwon .* or none"):
        prunepath.extract(path_folder, rearrange="all", **wish)


@pytest.mark.parametrize("kinds", [None, ["expert"]])
def test_experts_are_swapped(
    kinds: list[str] | None, tmp_path: Path, tiny_tokenizer: Any, text_file: Path
) -> None:
    """The odds of a router have no slope where they are 0: closed experts stay after round one."""
    changes = {"num_local_experts": 4, "num_experts_per_tok": 2}
    model = save_tiny(tmp_path / "model", tiny_tokenizer, "Mixtral", **changes)
    search(model, output=tmp_path / "path", data=text_file, **SEARCH)
    wish: dict[str, Any] = {"ratio": 0.2, "kinds": kinds, "refit": "none", "multiple": 1}
    made = prunepath.extract(tmp_path / "path", rearrange="swaps", **wish)
    assert made.rearranged["distance after"] <= made.rearranged["distance before"]
    assert torch.isfinite(logits_of(made.model)).all()


def test_experts_are_rearranged_and_tuned(
    tmp_path: Path, tiny_tokenizer: Any, text_file: Path
) -> None:
    # A router decides which tokens an expert sees, and in a cut model decides otherwise.
    changes = {"num_local_experts": 4, "num_experts_per_tok": 2}
    model = save_tiny(tmp_path / "model", tiny_tokenizer, "Mixtral", **changes)
    search(model, output=tmp_path / "path", data=text_file, **SEARCH)
    made = prunepath.extract(tmp_path / "path", ratio=0.3, refit="scales", rearrange=True)
    assert made.rearranged["damage after"] < made.rearranged["damage before"]
    assert made.refit["held-out loss with"] <= made.refit["held-out loss without"]
    assert torch.isfinite(logits_of(made.model)).all()


def test_a_search_without_samples_cannot_rearrange(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    wish = {**SEARCH, "refit_windows": 0}
    search(model_folder, output=tmp_path / "path", data=text_file, **wish)
    match = "kept no samples to read gate gradients on .*; search with some, or extract without"
    for word in ("kwon", "swaps"):
        with pytest.raises(PathFileError, match=match):
            prunepath.extract(tmp_path / "path", ratio=0.2, refit="none", rearrange=word)
    match = "kept no samples to run a cut model on .*; extract with --refit moments"
    with pytest.raises(PathFileError, match=match):
        prunepath.extract(tmp_path / "path", ratio=0.2, refit="scales")
