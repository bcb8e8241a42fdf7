"""The verbs on a vision model whose tokens merge: cut, written, read back, measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import prunepath
from prunepath.allocation.latency import FRACTIONS
from prunepath.cli.main import app
from prunepath.errors import PathFileError, RequestError
from prunepath.structure.tokens import TokenSchedule
from prunepath.surgery.record import recorded_tokens
from prunepath.tasks import TASKS
from tests.tasks.pictures import SETTINGS, draw_folders
from tests.zoo.models.vision import vit

COUNTS = {"windows": 6, "moment_windows": 2, "refit_windows": 4, "holdout_windows": 2}
SMALL: dict[str, Any] = {"multiple": 4, "floor": 4}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folders(tmp_path_factory.mktemp("images"), {"cat": 4, "dog": 4, "bird": 4})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random ViT classifier with 17 tokens."""
    names = dict(enumerate(("bird", "cat", "dog")))
    folder = tmp_path_factory.mktemp("vit") / "dense"
    vit("ViTForImageClassification", id2label=names, num_hidden_layers=3)().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(SETTINGS))
    return folder


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, model: Path, images: Path) -> Path:
    folder = tmp_path_factory.mktemp("searched") / "path"
    prunepath.search(model, output=folder, data=images, method="fisher", **COUNTS)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, path: Path) -> Any:
    folder = tmp_path_factory.mktemp("made") / "small"
    return prunepath.extract(path, output=folder, macs="70%", token_share=0.6, **SMALL)


def test_a_fresh_process_merges_as_well(made: Any) -> None:
    assert made.verification.loader == "prunepath"
    assert made.verification.difference <= made.verification.allowed
    assert made.allocation.reached <= made.allocation.limit
    schedule = made.allocation.tokens
    assert isinstance(schedule, TokenSchedule)
    assert sum(schedule.dropped) > 0
    assert recorded_tokens(made.model.config) == schedule
    assert 0 < made.allocation.ratio < 1
    card = (made.folder / "README.md").read_text()
    assert f"merges tokens that look alike while it runs: {schedule}" in card


def test_it_loads_through_the_auto_classes(made: Any, images: Path) -> None:
    from transformers import AutoModelForImageClassification

    pixels = {"pixel_values": torch.randn(2, 3, 16, 16)}
    with torch.no_grad():
        expected = made.model(**pixels).logits
        for loaded in (
            prunepath.load(made.folder),
            AutoModelForImageClassification.from_pretrained(made.folder).eval(),
        ):
            assert torch.equal(loaded(**pixels).logits, expected)
    found = prunepath.evaluate(made.folder, data=images, speed=False)
    assert (found.metric.name, found.metric.samples) == ("accuracy", 12)
    assert found.cost is not None
    assert found.cost.macs == pytest.approx(made.allocation.cost.macs, rel=0.01)


def test_inspect_says_it(made: Any, path: Path) -> None:
    found = prunepath.inspect(made.folder)
    assert found.tokens == made.allocation.tokens
    assert found.cost.macs == pytest.approx(made.allocation.cost.macs, rel=0.01)
    assert prunepath.inspect(path).tokens is None
    shown = CliRunner().invoke(app, ["inspect", str(made.folder)]).stdout
    assert "merges tokens while it runs: 17 tokens," in shown
    data = json.loads(CliRunner().invoke(app, ["inspect", str(made.folder), "--json"]).stdout)
    assert data["tokens"]["dropped"] == list(found.tokens.dropped)


def test_a_share_of_zero_is_what_it_was(path: Path) -> None:
    plain = prunepath.extract(path, macs="70%", **SMALL)
    zero = prunepath.extract(path, macs="70%", token_share=0.0, token_decay=0.5, **SMALL)
    assert plain.allocation.tokens is None
    states = [each.model.state_dict() for each in (plain, zero)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert plain.model.config.prunepath == zero.model.config.prunepath


@pytest.mark.usefixtures("no_fresh_process")
def test_the_command_line_takes_a_schedule(path: Path, tmp_path: Path) -> None:
    words = ["extract", path, "-o", tmp_path / "out", "--params", "90%", "--multiple", 4]
    words += ["--floor", 4, "--token-schedule", "4,0,2", "--json", "--quiet"]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.stderr
    shown = json.loads(result.stdout)
    assert shown["tokens"]["dropped"] == [4, 0, 2]
    assert recorded_tokens(prunepath.load(tmp_path / "out").config).dropped == (4, 0, 2)


@pytest.mark.usefixtures("no_fresh_process")
def test_a_scored_schedule_meets_the_budget(path: Path, tmp_path: Path) -> None:
    words = ["extract", path, "-o", tmp_path / "out", "--macs", "70%", "--multiple", 4, "--floor"]
    words += [4, "--token-share", 0.6, "--token-schedule", "scored", "--json", "--quiet"]
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.stderr
    shown = json.loads(result.stdout)
    dropped = shown["tokens"]["dropped"]
    assert sum(dropped) > 0
    assert recorded_tokens(prunepath.load(tmp_path / "out").config).dropped == tuple(dropped)
    made = prunepath.extract(path, macs="70%", token_share=0.6, token_schedule="scored", **SMALL)
    assert list(made.allocation.tokens.dropped) == dropped
    assert made.allocation.reached <= made.allocation.limit


def test_samples_for_a_scored_schedule_must_be_there(
    path: Path, model: Path, images: Path, tmp_path: Path
) -> None:
    none = {**COUNTS, "refit_windows": 0}
    prunepath.search(model, output=tmp_path / "bare", data=images, method="magnitude", **none)
    with pytest.raises(PathFileError, match="kept no samples to measure merging on"):
        prunepath.extract(
            tmp_path / "bare", macs="70%", refit="none", token_share=0.6, token_schedule="scored"
        )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--macs", "70%", "--token-schedule", "scored"], "Error: a scored token schedule was"),
        (
            [
                "--macs",
                "70%",
                "--token-share",
                "0.5",
                "--token-decay",
                "0.9",
                "--token-schedule",
                "scored",
            ],
            "Error: a scored token schedule and token decay 0.9 were given",
        ),
        (
            ["--macs", "30%", "--token-share", "1", "--token-schedule", "scored"],
            "Error: a token share of 1 leaves",
        ),
        (["--macs", "70%", "--token-share", "2"], "Error: token share 2 was asked for"),
        (["--params", "70%", "--token-share", "0.5"], "Error: a token share of 0.5 was asked for"),
        (["--macs", "70%", "--token-schedule", "a"], "Error: --token-schedule takes whole numbers"),
        (["--macs", "70%", "--token-schedule", "9,0,0"], "Error: the token schedule merges 9"),
        (["--macs", "30%", "--token-share", "1"], "Error: a token share of 1 leaves"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refused(words: list[str], message: str, path: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app, ["extract", str(path), "-o", str(tmp_path / "out"), *words, "--quiet"]
    )
    assert result.exit_code == 2
    assert result.stderr.startswith(message), result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("schedule", [(), "scored"])
def test_text_is_refused(path_folder: Path, schedule: Any) -> None:
    with pytest.raises(RequestError, match="tokens of this 'llama' model cannot merge: it has no"):
        prunepath.extract(path_folder, macs="80%", token_share=0.5, token_schedule=schedule)


def test_a_schedule_is_numbers_or_scored(path: Path) -> None:
    with pytest.raises(RequestError, match="unknown token schedule 'even'; give the patches to"):
        prunepath.extract(path, macs="80%", token_schedule="even")


@pytest.mark.usefixtures("no_fresh_process")
def test_what_merges_is_not_searched_or_cut(
    path: Path, model: Path, images: Path, tmp_path: Path
) -> None:
    merged = prunepath.extract(path, macs="99%", token_share=1.0, output=tmp_path / "merged")
    assert merged.allocation.ratio == 0
    assert merged.verification.loader == "prunepath"
    with pytest.raises(RequestError, match="merges tokens at run time .*take the model it was mad"):
        prunepath.search(tmp_path / "merged", output=tmp_path / "p", data=images, **COUNTS)
    with pytest.raises(RequestError, match="merges tokens at run time"):
        prunepath.extract(path, macs="90%", model=tmp_path / "merged")


def test_latency_budgets_count_it_in(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    from prunepath.api.workshop import Workshop
    from prunepath.evaluation import token_pace

    shop = Workshop(path, token_schedule=(4, 2, 0), refit="none")
    shop.open()
    measured = token_pace.token_pace(
        shop.dense, TASKS["image-classification"], shop.path.structure, shop._site
    )
    assert set(measured.curves) == {"attention", "mlp"}
    for curve in measured.curves.values():
        assert curve[-1] == 1
        assert (curve[1:] >= curve[:-1]).all()
    assert measured.merge_seconds > 0
    # So small a model spends more on merging than it saves, and what fewer tokens save drowns in
    # the noise of the clock: the budget is checked against made-up savings.
    curves = {name: np.array(FRACTIONS) for name in measured.curves}
    free = replace(measured, curves=curves, merge_seconds=0.0)
    monkeypatch.setattr(token_pace, "token_pace", lambda *_, **__: free)
    made = shop.make(prunepath.Budget.parse("latency", "100%"))
    assert made.allocation.tokens is not None
    assert made.allocation.reached < made.allocation.limit
    assert made.latency_seconds is not None
