"""The verbs on a model that is no language model: a text classifier with padded samples."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import prunepath
from prunepath.api.repair import HeldOut
from prunepath.cli.main import app
from prunepath.data.samples import Samples
from prunepath.errors import RequestError
from prunepath.evaluation import Throughput
from prunepath.tasks import TASKS
from tests.tasks.tiny import SHAPE, WORDS, word_tokenizer

COUNTS = {"windows": 8, "moment_windows": 4, "refit_windows": 4, "holdout_windows": 4}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty short texts of different lengths with labels, one JSON object a line."""
    rows = [
        {"sentence": " ".join(WORDS[i % 5 : i % 5 + 3 + i % 7]), "label": i % 2} for i in range(20)
    ]
    file = tmp_path_factory.mktemp("table") / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random text classifier and its tokenizer."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**SHAPE, initializer_range=0.3))
    folder = tmp_path_factory.mktemp("classifier") / "dense"
    model.eval().save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, classifier: Path, table: Path) -> Path:
    """What the default search finds."""
    folder = tmp_path_factory.mktemp("searched") / "path"
    prunepath.search(classifier, output=folder, data=table, **COUNTS)
    return folder


def test_the_path_names_the_task(path: Path) -> None:
    made = prunepath.SolutionPath.from_pretrained(path).provenance
    assert (made.task, made.objective, made.samples) == ("text-classification", "kl", 8)
    assert prunepath.inspect(path).task == "text-classification"


def test_all_inputs_of_the_refit_lie_beside_the_path(path: Path) -> None:
    tensors = load_file(path / "calibration.safetensors")
    names = {name.partition(".")[2] for name in tensors}
    assert {"input_ids", "attention_mask"} <= names
    batch = TASKS["text-classification"].counts.batch
    rows = {name.partition(".")[0]: len(value) for name, value in tensors.items()}
    assert rows == {"refit": min(8, batch), "holdout": 4}


@pytest.mark.usefixtures("no_fresh_process")
@pytest.mark.parametrize("refit", ["sequential", "moments", "scales", "none"])
def test_cut_and_measured(refit: str, tmp_path: Path, path: Path, table: Path) -> None:
    made = prunepath.extract(
        path, output=tmp_path / "small", ratio=0.3, refit=refit, multiple=2, floor=2
    )
    assert made.task == "text-classification"
    assert ("held-out loss with" in made.refit) == (refit != "none")
    found = prunepath.evaluate(tmp_path / "small", data=table, windows=20)
    assert (found.metric.name, found.metric.samples) == ("accuracy", 20)
    assert isinstance(found.speed, Throughput)
    assert found.cost == made.allocation.cost
    with pytest.raises(RequestError, match="the task is text-classification; read `metric`"):
        _ = found.perplexity


def test_the_strength_is_chosen_without_labels(classifier: Path) -> None:
    model = prunepath.load(classifier)
    task = TASKS["text-classification"]
    samples = task.dummy(model, 6)
    bare = Samples(inputs=samples.inputs)
    held_out = HeldOut(task, model, bare)
    (part,) = held_out.parts
    assert float(held_out.losses(model, part)) == pytest.approx(0, abs=1e-6)
    other = prunepath.load(classifier)
    with torch.no_grad():
        other.classifier.weight[0].mul_(-5.0)
    assert float(held_out.losses(other, part)) > 1e-4


@pytest.mark.parametrize(("width", "parts"), [(64, 2), (256, 4)])
def test_text_is_held_out_in_halves(width: int, parts: int, tiny_llama: Callable[..., Any]) -> None:
    model, task = tiny_llama(), TASKS["causal-lm"]
    windows = Samples(inputs={"input_ids": torch.arange(2 * width).view(2, width) % 300})
    held_out = HeldOut(task, model, windows)
    assert len(held_out.parts) == parts
    seen = [part.inputs["input_ids"] for part in held_out.parts]
    assert torch.equal(torch.cat([ids.flatten() for ids in seen]), torch.arange(2 * width) % 300)
    assert len({part.fingerprint for part in held_out.parts}) == parts
    assert sum(len(held_out.losses(model, part)) for part in held_out.parts) == 2 * width - parts


@pytest.mark.parametrize("wish", [{"method": "taylor"}, {"config": {"dynamics": "coupled"}}])
def test_other_searches(
    wish: dict[str, Any], tmp_path: Path, classifier: Path, table: Path
) -> None:
    if "config" in wish:
        wish = {"config": {**wish["config"], "max_steps": 3}}
    found = prunepath.search(classifier, output=tmp_path / "path", data=table, **COUNTS, **wish)
    ranks = sorted(rank for ranks in found.rank.values() for rank in ranks)
    assert ranks == list(range(len(ranks)))


def test_the_command_line_draws_accuracy(tmp_path: Path, path: Path, table: Path) -> None:
    words = ["curve", path, "-o", tmp_path, "--points", "0.1", "--refit", "none", "--speed"]
    words += ["--data", table, "--windows", 10, "--label-field", "label", "--quiet"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert "accuracy" in result.stdout
    assert "samples/s" in result.stdout
    assert "KV cache" not in result.stdout
    assert (tmp_path / "curve.png").is_file()


def test_another_task_is_refused(classifier: Path, table: Path) -> None:
    with pytest.raises(RequestError, match="unknown task 'classification'"):
        prunepath.evaluate(classifier, data=table, task="classification")
