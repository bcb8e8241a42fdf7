"""`extract`: every budget, layout and refit, checked on the files that were written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import prunepath
from prunepath.api.search import search
from prunepath.errors import (
    BudgetError,
    DiskError,
    ExactnessError,
    ModelError,
    PathFileError,
    PrunepathError,
    RequestError,
)
from tests.api.fixtures import SEARCH, save_tiny

REFITS = ("sequential", "moments", "scales", "none")
IDS = torch.arange(24).view(1, -1) * 37 % 300
# Loads a folder with transformers alone; a class of ours would not be found.
STOCK_PROGRAM = """
import sys
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
save_file({"logits": model(load_file(sys.argv[2])["ids"]).logits.detach()}, sys.argv[3])
assert "prunepath" not in sys.modules
"""


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.usefixtures("no_fresh_process")
@pytest.mark.parametrize("layout", ["per-layer", "uniform"])
@pytest.mark.parametrize(
    "budget",
    [
        {"params": "90%"},
        {"params": "50K"},
        {"macs": "85%"},
        {"memory": "88%"},
        {"memory": "250KB"},
        {"ratio": 0.25},
    ],
    ids=str,
)
def test_the_files_never_exceed_the_budget(
    budget: dict[str, Any], layout: str, tmp_path: Path, path_folder: Path
) -> None:
    made = prunepath.extract(
        path_folder, output=tmp_path / "small", layout=layout, sequence_length=64, **budget
    )
    # Which rotary pairs were kept is written beside the parameters, as whole numbers.
    tensors = [t for t in tensors_of(tmp_path / "small").values() if t.is_floating_point()]
    cost = made.allocation.cost
    assert sum(tensor.numel() for tensor in tensors) == cost.params
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) == cost.weight_bytes
    assert made.allocation.reached <= made.allocation.limit
    assert cost.params < made.allocation.dense.params
    found = prunepath.inspect(tmp_path / "small", sequence_length=64)
    assert found.cost == cost, "counted anew from the files"


def test_latency_is_measured_once_for_this_machine(
    tmp_path: Path, path_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for _ in range(2):
        made = prunepath.extract(path_folder, sequence_length=16, latency="100%", refit="none")
        assert made.allocation.reached <= made.allocation.limit
        assert made.latency_seconds is not None
        assert made.latency_seconds > 0
        assert len(list(tmp_path.rglob("*.json"))) == 1


@pytest.mark.parametrize("layout", ["per-layer", "uniform"])
def test_a_latency_budget_is_met_by_the_table(
    layout: str, path_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So small a model spends its time between the sub-layers: here a table is made up.
    import numpy as np

    from prunepath.allocation.latency import FRACTIONS, LatencyTable
    from prunepath.evaluation import latency

    width = np.array(FRACTIONS)
    table = LatencyTable(
        fixed_seconds=1e-3,
        grids={
            "self_attn": (("pair", "value"), 1e-3 * np.add.outer(width, width)),
            "mlp": (("ffn",), 4e-3 * width),
        },
        sequence_length=16,
        machine="made up",
    )
    monkeypatch.setattr(latency, "latency_table", lambda *_, **__: table)
    made = prunepath.extract(
        path_folder, layout=layout, sequence_length=16, latency="10 ms", refit="none"
    )
    assert made.allocation.limit == 10e-3
    assert 9e-3 < made.allocation.reached <= 10e-3
    assert made.allocation.cost.params < made.allocation.dense.params


@pytest.mark.usefixtures("no_fresh_process")
@pytest.mark.parametrize("refit", REFITS)
@pytest.mark.parametrize("layout", ["per-layer", "uniform"])
def test_what_is_read_back_equals_what_was_made(
    layout: str, refit: str, tmp_path: Path, path_folder: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path / "small"
    made = prunepath.extract(path_folder, output=folder, layout=layout, refit=refit, ratio=0.2)
    again = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert torch.equal(logits_of(again), logits_of(made.model))
    assert torch.equal(logits_of(prunepath.load(folder)), logits_of(made.model))
    assert AutoTokenizer.from_pretrained(folder)("path")["input_ids"]
    written = again.generate(IDS[:, :4], max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert written.shape == (1, 8)
    assert (folder / "README.md").read_text().startswith("---\nlibrary_name: transformers")
    assert made.refit["kind"] == refit
    assert ("held-out loss with" in made.refit) == (refit != "none")
    if refit != "none":
        assert made.refit["held-out loss with"] <= made.refit["held-out loss without"]


def test_per_layer_is_verified_in_a_fresh_process(tmp_path: Path, path_folder: Path) -> None:
    made = prunepath.extract(path_folder, output=tmp_path / "small", params="85%")
    assert made.verification is not None
    assert made.verification.loader == "prunepath"
    assert made.verification.difference <= 1e-5
    assert made.folder == tmp_path / "small"
    assert set(made.seconds) >= {"allocate", "cut", "refit", "write and verify"}
    assert [item.name for item in tmp_path.iterdir()] == ["small"]


@pytest.mark.usefixtures("no_fresh_process")
def test_uniform_loads_without_prunepath(tmp_path: Path, path_folder: Path) -> None:
    folder = tmp_path / "small"
    made = prunepath.extract(path_folder, output=folder, params="85%", layout="uniform")
    assert made.verification is not None
    assert made.verification.loader == "transformers"
    save_file({"ids": IDS}, tmp_path / "ids")
    command = [sys.executable, "-W", "ignore", "-c", STOCK_PROGRAM]
    subprocess.run([*command, folder, tmp_path / "ids", tmp_path / "logits"], check=True)
    torch.testing.assert_close(
        load_file(tmp_path / "logits")["logits"], logits_of(made.model), atol=1e-5, rtol=0
    )


@pytest.mark.usefixtures("no_fresh_process")
@pytest.mark.parametrize("refit", REFITS)
@pytest.mark.parametrize("layout", ["per-layer", "uniform"])
def test_ratio_0_is_the_dense_model_bit_for_bit(
    layout: str, refit: str, tmp_path: Path, path_folder: Path, model_folder: Path
) -> None:
    folder = tmp_path / "same"
    made = prunepath.extract(path_folder, output=folder, ratio=0, refit=refit, layout=layout)
    assert made.allocation.ratio == 0
    dense, same = tensors_of(model_folder), tensors_of(folder)
    assert set(dense) == set(same)
    assert all(torch.equal(dense[name], same[name]) for name in dense)
    assert torch.equal(logits_of(prunepath.load(folder)), logits_of(prunepath.load(model_folder)))
    assert made.verification is not None
    assert made.verification.loader == "transformers", "nothing was cut, so anything loads it"


@pytest.mark.usefixtures("no_fresh_process")
def test_the_same_request_gives_the_same_bytes(tmp_path: Path, path_folder: Path) -> None:
    for name in "ab":
        prunepath.extract(path_folder, output=tmp_path / name, ratio=0.2)
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert one == two


def test_smaller_budgets_keep_a_subset(path_folder: Path) -> None:
    path = prunepath.SolutionPath.from_pretrained(path_folder)
    large, small = (
        prunepath.extract(path, ratio=ratio, refit="none").allocation.selection
        for ratio in (0.1, 0.3)
    )
    assert small.issubset(large, path.structure)


def test_in_memory_nothing_is_written(path_folder: Path, model_folder: Path) -> None:
    dense = prunepath.load(model_folder)
    before = logits_of(dense)
    made = prunepath.extract(path_folder, ratio=0.2, model=dense)
    assert made.folder is None
    assert made.verification is None
    assert made.model is not dense
    assert torch.equal(logits_of(dense), before), "the dense model is left as it was"


def test_kinds_multiple_and_floor_are_obeyed(path_folder: Path) -> None:
    made = prunepath.extract(
        path_folder,
        ratio=0.3,
        kinds=["ffn_channel"],
        multiple=4,
        floor=12,
        refit="moments",
        bias=True,
    )
    widths = [layer.mlp.down_proj.in_features for layer in made.model.model.layers]
    assert all(width % 4 == 0 and 12 <= width <= 56 for width in widths)
    assert made.model.model.layers[0].self_attn.head_dim == 12
    assert made.model.model.layers[0].mlp.down_proj.bias is not None


def refused(
    tmp_path: Path, error: type[PrunepathError], match: str, path: Any, **wish: Any
) -> None:
    """The extraction fails with that message and leaves nothing beside its output."""
    parent = tmp_path / "outputs"
    parent.mkdir()
    with pytest.raises(error, match=match):
        prunepath.extract(path, **{"output": parent / "small", **wish})
    assert list(parent.iterdir()) == []


@pytest.mark.parametrize(
    ("wish", "match"),
    [
        ({"ratio": 1.3}, "--ratio 1.3 is the fraction of block parameters to remove, so it must"),
        ({"ratio": -0.1}, "--ratio -0.1 is the fraction"),
        ({"params": "70"}, "--params 70 has no unit; did you mean 70% or 70M"),
        ({"params": "170%"}, "--params 170% keeps that much of the dense model, so it must be"),
        ({"params": "many"}, "--params many is not a size; write for example 70% or 95M"),
        ({"memory": "3 km"}, "--memory 3 km has an unknown unit; use % or one of B, KB"),
        ({"params": "900M"}, "is above the dense model, which has .*; ask for less"),
        ({"params": "1%"}, "the smallest model this path can give has .*; ask for at least that"),
        ({"memory": "1KB"}, "the smallest model this path can give has .*; ask for at least that"),
    ],
    ids=str,
)
def test_impossible_budgets_are_refused_before_the_model_is_loaded(
    wish: dict[str, Any], match: str, tmp_path: Path, path_folder: Path
) -> None:
    refused(tmp_path, BudgetError, match, path_folder, model="no/such-model", **wish)


def test_what_the_refusal_names_can_be_asked_for(path_folder: Path) -> None:
    with pytest.raises(BudgetError) as refusal:
        prunepath.extract(path_folder, params="1%")
    smallest = str(refusal.value).partition("can give has ")[2].partition(";")[0]
    made = prunepath.extract(path_folder, params=smallest, refit="none")
    assert made.allocation.reached <= made.allocation.limit


@pytest.mark.parametrize(
    ("wish", "match"),
    [
        ({}, "exactly one budget is needed and none was given; use one of --params 70%"),
        ({"params": "70%", "ratio": 0.3}, "exactly one budget is needed and params, ratio was"),
        ({"ratio": 0.3, "layout": "even"}, "unknown layout 'even'; use 'uniform'"),
        ({"ratio": 0.3, "refit": "best"}, "unknown refit 'best'; use one of sequential, moments"),
        ({"ratio": 0.3, "bias": True}, "biases are fitted from moments"),
        (
            {"ratio": 0.3, "rule": "best"},
            "unknown rule 'best'; use 'order' .*, 'knapsack' .* or 'shares'",
        ),
        ({"ratio": 0.3, "kinds": ["row"]}, "unknown unit kind 'row'; this path has .*ffn_channel"),
        ({"ratio": 0.3, "multiple": 0}, "multiple is 0; widths are multiples of 1 or more"),
        ({"ratio": 0.3, "floor": -1}, "floor is -1; a width cannot be below 0"),
        ({"ratio": 0.3, "floor": "-1"}, "floor is -1; a width cannot be below 0"),
        ({"ratio": 0.3, "floor": "half"}, "floor is 'half'; give a width such as 8, or a part of"),
        ({"ratio": 0.3, "floor": "120%"}, "floor is '120%'; give a width such as 8, or a part of"),
    ],
    ids=str,
)
def test_malformed_requests_are_refused_before_the_model_is_loaded(
    wish: dict[str, Any], match: str, tmp_path: Path, path_folder: Path
) -> None:
    refused(tmp_path, RequestError, match, path_folder, model="no/such-model", **wish)


def test_other_weights_are_refused(
    tmp_path: Path, path_folder: Path, tiny_tokenizer: Any, model_folder: Path
) -> None:
    other = prunepath.load(model_folder)
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight[0, 0] += 1
    other.save_pretrained(tmp_path / "other")
    match = "this path belongs to .* with weights [0-9a-f]{12}, and .*other' has weights"
    refused(tmp_path, PathFileError, match, path_folder, ratio=0.2, model=tmp_path / "other")


def test_a_model_that_has_moved_is_named(
    tmp_path: Path, tiny_tokenizer: Any, text_file: Path
) -> None:
    model = save_tiny(tmp_path / "model", tiny_tokenizer)
    search(model, output=tmp_path / "path", data=text_file, **SEARCH)
    shutil.rmtree(model)
    refused(tmp_path, ModelError, "there is no model folder", tmp_path / "path", ratio=0.2)


def truncate(folder: Path) -> None:
    file = folder / "path.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def tamper(folder: Path) -> None:
    file = folder / "path.safetensors"
    file.write_bytes(file.read_bytes().replace(b'\\"seed\\": 0', b'\\"seed\\": 1'))


def remove(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()

    change.__name__ = f"without {name}"
    return change


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (truncate, "cannot be read .* it is truncated or not a safetensors file, so search again"),
        (tamper, "does not match its own checksum; it was damaged or edited, so search again"),
        (remove("path.safetensors"), "there is no solution path at .* run `prunepath search"),
        (
            remove("statistics.safetensors"),
            "missing or damaged, so search again, or extract with --refit none",
        ),
        (
            remove("calibration.safetensors"),
            "missing or damaged .* search again, or extract with --refit none",
        ),
        (
            remove("outputs-00001.safetensors"),
            "missing or damaged .* search again, or extract with --refit moments",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_damaged_folders_are_refused(
    damage: Callable[[Path], None], match: str, tmp_path: Path, path_folder: Path
) -> None:
    folder = tmp_path / "path"
    shutil.copytree(path_folder, folder)
    damage(folder)
    refused(tmp_path, PathFileError, match, folder, ratio=0.2)


@pytest.mark.usefixtures("no_fresh_process")
def test_the_path_alone_is_enough_without_refit(tmp_path: Path, path_folder: Path) -> None:
    (tmp_path / "path").mkdir()
    shutil.copy(path_folder / "path.safetensors", tmp_path / "path")
    made = prunepath.extract(tmp_path / "path", output=tmp_path / "small", ratio=0.2, refit="none")
    assert made.refit == {"kind": "none"}


def test_statistics_of_another_path_are_refused(
    tmp_path: Path, path_folder: Path, tiny_tokenizer: Any, text_file: Path
) -> None:
    other = save_tiny(tmp_path / "other", tiny_tokenizer, num_hidden_layers=1)
    search(other, output=tmp_path / "path", data=text_file, **SEARCH)
    shutil.copy(path_folder / "statistics.safetensors", tmp_path / "path")
    match = "the statistics in .* belong to other weights than the path; search again"
    refused(tmp_path, PathFileError, match, tmp_path / "path", ratio=0.2)


def test_nothing_is_kept_when_verification_fails(
    tmp_path: Path, path_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunepath.checkpoint import verify

    def differs(*_: Any, **__: Any) -> None:
        raise ExactnessError("the written model differs")

    monkeypatch.setattr(verify, "verify_reload", differs)
    refused(tmp_path, ExactnessError, "the written model differs", path_folder, ratio=0.2)
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.json").write_text("{}")
    with pytest.raises(ExactnessError):
        prunepath.extract(path_folder, output=old, ratio=0.2, overwrite=True)
    assert [item.name for item in old.iterdir()] == ["config.json"], "the old model stays"


@pytest.mark.usefixtures("no_fresh_process")
def test_a_folder_in_use_is_kept_unless_asked(tmp_path: Path, path_folder: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "mine.txt").write_text("keep")
    with pytest.raises(DiskError, match="already exists and is not empty; .*--overwrite"):
        prunepath.extract(path_folder, output=used, ratio=0.2)
    assert (used / "mine.txt").read_text() == "keep"
    prunepath.extract(path_folder, output=used, ratio=0.2, overwrite=True)
    assert not (used / "mine.txt").exists()


def test_a_full_disk_is_refused_before_the_model_is_loaded(
    tmp_path: Path, path_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    match = "needs .* but only 1.00 KB are free there; free some space"
    refused(tmp_path, DiskError, match, path_folder, ratio=0.2, model="no/such-model")


def test_an_interrupted_extraction_leaves_nothing(
    tmp_path: Path, path_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunepath.checkpoint import verify

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verify, "verify_reload", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prunepath.extract(path_folder, output=tmp_path / "small", ratio=0.2)
    assert list(tmp_path.iterdir()) == []
