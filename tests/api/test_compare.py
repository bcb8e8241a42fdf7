"""`compare`: one pass for all, the same as searches of their own, resumed, and refused in time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from typer.testing import CliRunner

import prunepath
from prunepath.cli.main import app
from prunepath.errors import BudgetError, DataError, PrunepathError, RequestError
from prunepath.recipes import Recipe
from prunepath.report.comparison import ComparisonRow
from tests.api.fixtures import SEARCH, save_tiny
from tests.api.test_search import StopAt, count_passes
from tests.tasks import pictures, tiny

T = TypeVar("T")

COMPARE: dict[str, Any] = {
    **SEARCH,
    "methods": ["spp", "fisher", "fisher+moments"],
    "ratios": [0.1, 0.3],
    "evaluation_windows": 2,
}
SMALL: dict[str, Any] = {
    "windows": 8,
    "moment_windows": 4,
    "refit_windows": 4,
    "holdout_windows": 4,
    "methods": ["fisher", "magnitude+moments"],
    "ratios": [0.2],
}


def lasting(rows: list[ComparisonRow]) -> list[ComparisonRow]:
    """Rows without what is never twice the same: clocks and memory."""
    clocks = ("statistics_seconds", "ranking_seconds", "extraction_seconds", "peak_bytes")
    return [replace(row, **dict.fromkeys(clocks)) for row in rows]


@pytest.fixture(scope="module")
def compared(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path
) -> tuple[Path, list[ComparisonRow]]:
    """A comparison on the texts in the package; read it, never write into it."""
    folder = tmp_path_factory.mktemp("compared") / "table"
    return folder, prunepath.compare(model_folder, output=folder, **COMPARE)


def test_dense_and_random_are_always_there(compared: tuple[Path, list[ComparisonRow]]) -> None:
    folder, rows = compared
    assert [(row.recipe, row.asked_ratio) for row in rows] == [
        ("dense", 0.0),
        *((name, ratio) for name in (*COMPARE["methods"], "random") for ratio in (0.1, 0.3)),
    ]
    assert all(row.quality is not None and row.quality > 1 for row in rows)
    assert all(row.peak_bytes is None or row.peak_bytes > 1e6 for row in rows)
    text = (folder / "compare.md").read_text()
    assert text.startswith("| recipe ")
    assert "Lower perplexity is better." in text
    assert (folder / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert not (folder / ".work").exists()
    lines = next(folder.glob("compare-*.jsonl")).read_text().splitlines()
    assert len(lines) == len(rows)


def test_a_path_equals_that_of_its_own_search(
    tmp_path: Path, compared: tuple[Path, list[ComparisonRow]], model_folder: Path
) -> None:
    for name in (*COMPARE["methods"], "random"):
        own = prunepath.search(model_folder, output=tmp_path / name, method=name, **SEARCH)
        shared = prunepath.SolutionPath.from_pretrained(compared[0] / "paths" / name)
        assert shared.removal_order == own.removal_order, name
        assert replace(shared.provenance, model_id="") == replace(own.provenance, model_id="")


def test_a_row_is_what_extract_and_evaluate_give(
    compared: tuple[Path, list[ComparisonRow]], model_folder: Path
) -> None:
    folder, rows = compared
    for name, kind in (("spp", "sequential"), ("fisher", "none"), ("fisher+moments", "moments")):
        made = prunepath.extract(folder / "paths" / name, ratio=0.3, sequence_length=32)
        assert made.refit["kind"] == kind
        found = prunepath.evaluate(
            made.model,
            windows=2,
            window=32,
            speed=False,
            tokenizer=str(model_folder),
        )
        (row,) = (r for r in rows if (r.recipe, r.asked_ratio) == (name, 0.3))
        assert row.quality == pytest.approx(found.metric.value, rel=1e-6)
        assert row.ratio == made.allocation.ratio >= 0.3
        # Counted from tensors, not from the plan.
        assert row.params == sum(each.numel() for each in made.model.parameters())
        assert row.params == made.allocation.cost.params
        assert row.macs == made.allocation.cost.macs
        ids = torch.zeros(1, 5, dtype=torch.int64)
        cache = made.model(input_ids=ids, use_cache=True).past_key_values
        size = sum(
            4 * part.numel() for layer in cache.layers for part in (layer.keys, layer.values)
        )
        assert row.kv_bytes_per_token == size / 5


def test_the_distance_is_the_divergence_from_the_dense_answers(
    compared: tuple[Path, list[ComparisonRow]], model_folder: Path
) -> None:
    from prunepath.api.evaluate import evaluation_samples
    from prunepath.checkpoint.source import open_model

    folder, rows = compared
    dense = open_model(model_folder, dtype="float32")
    chosen: dict[str, Any] = {"text_field": "", "label_field": "", "split": None}
    samples = evaluation_samples(dense, None, windows=2, window=32, **chosen)
    made = prunepath.extract(folder / "paths" / "spp", ratio=0.3, sequence_length=32)
    with torch.no_grad():
        ids = samples.inputs["input_ids"]
        wanted, own = (m(input_ids=ids).logits.double() for m in (dense.model, made.model))
    truth = (wanted.softmax(-1) * (wanted.log_softmax(-1) - own.log_softmax(-1))).sum(-1).mean()
    found = {(row.recipe, row.asked_ratio): row.distance for row in rows}
    assert found["dense", 0.0] == pytest.approx(0, abs=1e-7)
    assert found["spp", 0.3] == pytest.approx(float(truth), rel=1e-4)
    assert "how far answers are from the dense model's" in (folder / "compare.md").read_text()


def test_one_pass_serves_all_and_a_second_call_measures_nothing(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunepath.statistics import run

    passes = count_passes(run, monkeypatch)
    rows = prunepath.compare(model_folder, output=tmp_path / "t", **COMPARE)
    once = [*["draw_backward"] * SEARCH["windows"], *["_forward"] * SEARCH["moment_windows"]]
    assert passes == once, "one pass for three recipes"
    assert prunepath.compare(model_folder, output=tmp_path / "t", **COMPARE) == rows
    assert passes == once
    wish = {**COMPARE, "ratios": [0.1, 0.2, 0.3]}
    more = prunepath.compare(model_folder, output=tmp_path / "t", **wish)
    assert passes == once, "the paths are there"
    assert [row for row in more if row.asked_ratio != 0.2] == rows
    wish = {**COMPARE, "methods": [*COMPARE["methods"], "taylor"]}
    prunepath.compare(model_folder, output=tmp_path / "t", **wish)
    assert passes == [*once, *once], "another objective has a pass of its own"


class StopAtNote:
    """A listener that is Ctrl-C when it hears a certain word."""

    def __init__(self, word: str) -> None:
        self.word = word

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        return iter(items)

    def note(self, message: str) -> None:
        if message.startswith(self.word):
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "listener",
    [StopAt("calibrating", 1), StopAt("calibrating", 4), StopAtNote("spp 0.1"), StopAtNote("rand")],
    ids=["pass", "moments", "first row", "last rows"],
)
def test_interrupted_it_goes_on_to_equal_rows(
    listener: Any,
    tmp_path: Path,
    compared: tuple[Path, list[ComparisonRow]],
    model_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from prunepath.statistics import run

    monkeypatch.setattr(run, "_SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    monkeypatch.setattr(run, "_WORK_PER_CHECKPOINT", 0.0)
    passes = count_passes(run, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        prunepath.compare(model_folder, output=tmp_path, progress=listener, **COMPARE)
    assert not (tmp_path / "compare.md").exists()
    rows = prunepath.compare(model_folder, output=tmp_path, **COMPARE)
    assert len(passes) == SEARCH["windows"] + SEARCH["moment_windows"], "no window ran twice"
    assert lasting(rows) == lasting(compared[1])


def test_seeds_give_means_and_deviations(tmp_path: Path, model_folder: Path) -> None:
    wish = {**COMPARE, "methods": ["magnitude"], "ratios": [0.2], "seeds": [0, 1, 2]}
    rows = prunepath.compare(model_folder, output=tmp_path, **wish)
    assert [(row.recipe, row.seed) for row in rows] == [
        ("dense", 0),
        *(("magnitude", seed) for seed in range(3)),
        *(("random", seed) for seed in range(3)),
    ]
    fixed, drawn = rows[1:4], rows[4:]
    assert len({row.quality for row in fixed}) == 1
    assert [row.note for row in fixed] == ["", *["the same for every seed"] * 2]
    assert len({row.quality for row in drawn}) == 3
    text = (tmp_path / "compare.md").read_text()
    assert "+- 0.00" in text
    assert "Means over 3 seeds" in text


def test_other_evaluation_data_is_another_table(tmp_path: Path, model_folder: Path) -> None:
    wish = {**COMPARE, "methods": ["magnitude"], "ratios": [0.2]}
    one = prunepath.compare(model_folder, output=tmp_path, **wish)
    two = prunepath.compare(model_folder, output=tmp_path, **{**wish, "evaluation_windows": 3})
    assert len(list(tmp_path.glob("compare-*.jsonl"))) == 2
    assert one[0].quality != two[0].quality


def test_one_repair_and_layout_for_all(tmp_path: Path, model_folder: Path) -> None:
    wish = {**COMPARE, "methods": ["fisher", "fisher+moments"], "ratios": [0.2]}
    rows = prunepath.compare(
        model_folder, output=tmp_path, refit="moments", layout="uniform", **wish
    )
    assert [row.recipe for row in rows] == [
        "dense",
        "fisher+moments+uniform",
        "random+moments+uniform",
    ]


def test_questions_are_answered_by_all(tmp_path: Path, model_folder: Path) -> None:
    file = tmp_path / "riddles.jsonl"
    lines = [{"ctx": f"Question {i}:", "choices": ["yes", "no"], "gold": i % 2} for i in range(6)]
    file.write_text("\n".join(map(json.dumps, lines)))
    wish = {**COMPARE, "methods": ["magnitude"], "ratios": [0.2]}
    rows = prunepath.compare(
        model_folder, output=tmp_path / "t", choices=[file], questions=4, **wish
    )
    assert all(row.choices["riddles"] in (0, 25, 50, 75, 100) for row in rows)
    assert "riddles" in (tmp_path / "t" / "compare.md").read_text()


def test_a_mixture_of_experts(tmp_path: Path, tiny_tokenizer: Any) -> None:
    shape = {"num_local_experts": 4, "num_experts_per_tok": 2}
    model = save_tiny(tmp_path / "model", tiny_tokenizer, "Mixtral", **shape)
    wish = {**COMPARE, "methods": ["fisher+moments"], "ratios": [0.2]}
    rows = prunepath.compare(model, output=tmp_path / "t", **wish)
    assert rows[0].params == prunepath.load(model).num_parameters()
    made = prunepath.extract(tmp_path / "t" / "paths" / "fisher+moments", ratio=0.2)
    assert rows[1].params == made.allocation.cost.params == made.model.num_parameters()


def sentences(start: int, count: int) -> list[dict[str, Any]]:
    """Labelled texts that differ from all others with other numbers."""
    words = tiny.WORDS
    return [
        {
            "sentence": " ".join(words[(i // len(words) ** p) % len(words)] for p in range(3)),
            "label": i % 2,
        }
        for i in range(start, start + count)
    ]


def classifier(folder: Path) -> Path:
    from tests.tasks.test_every_task import save

    return save(tiny.opened("BertForSequenceClassification", num_labels=2), folder)


def test_a_text_classifier_and_texts_that_recur_by_chance(tmp_path: Path) -> None:
    model = classifier(tmp_path / "model")
    calibration, evaluation = sentences(0, 15), sentences(100, 20)
    rows = prunepath.compare(
        model, output=tmp_path / "t", data=calibration, evaluation_data=evaluation, **SMALL
    )
    assert [row.recipe for row in rows] == ["dense", "fisher", "magnitude+moments", "random"]
    assert {(row.metric, row.higher_is_better) for row in rows} == {("accuracy", True)}
    assert {row.kv_bytes_per_token for row in rows} == {0}
    assert "Higher accuracy is better." in (tmp_path / "t" / "compare.md").read_text()
    notes: list[str] = []

    class Listener(StopAtNote):
        def note(self, message: str) -> None:
            notes.append(message)

    again = prunepath.compare(  # sixteen, all of which are read
        model,
        output=tmp_path / "again",
        data=[calibration[0], evaluation[3], *calibration[1:]],
        evaluation_data=evaluation,
        progress=Listener(""),
        **SMALL,
    )
    assert "1 short texts are in the evaluation data, too: left out" in notes
    assert len(again) == len(rows)


def test_an_image_classifier(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    from tests.tasks.test_every_task import save

    names = {0: "cat", 1: "dog"}
    config = ViTConfig(
        **pictures.TOWER, image_size=16, patch_size=8, id2label=names, label2id={"cat": 0, "dog": 1}
    )
    vit = pictures.seeded(ViTForImageClassification, config)
    model = save(pictures.opened(vit), tmp_path / "model")
    images = [(pictures.picture(seed), names[seed % 2]) for seed in range(40)]
    wish: dict[str, Any] = {"data": images[:16], **SMALL}
    rows = prunepath.compare(model, output=tmp_path / "t", evaluation_data=images[16:32], **wish)
    assert {row.metric for row in rows} == {"accuracy"}
    assert rows[1].params < rows[0].params
    assert "| accuracy | distance |" in (tmp_path / "t" / "compare.md").read_text().splitlines()[0]
    with pytest.raises(DataError, match="overlap: 4 of 16 evaluation samples .* the first is"):
        prunepath.compare(model, output=tmp_path / "u", evaluation_data=images[12:28], **wish)
    assert not (tmp_path / "u").exists()


def test_data_that_was_calibrated_on_is_refused(
    tmp_path: Path, model_folder: Path, text_file: Path
) -> None:
    match = r"data overlap: 2 of 2 evaluation samples .*text\.txt.* sample 0 \('A path says .*give"
    with pytest.raises(DataError, match=match):
        prunepath.compare(
            model_folder,
            output=tmp_path / "t",
            data=text_file,
            evaluation_data=text_file,
            **COMPARE,
        )
    questions = tmp_path / "asked.jsonl"
    text = text_file.read_text()
    questions.write_text(json.dumps({"ctx": text[:400], "choices": ["a", "b"], "gold": 0}))
    with pytest.raises(DataError, match="evaluation samples .questions of asked.jsonl. are also"):
        prunepath.compare(
            model_folder, output=tmp_path / "t", data=text_file, choices=[questions], **COMPARE
        )
    assert not (tmp_path / "t").exists()


def test_texts_that_all_recur_are_refused(tmp_path: Path) -> None:
    model = classifier(tmp_path / "model")
    with pytest.raises(DataError, match=r"overlap: (16|17|18|19|20) of 20 evaluation"):
        prunepath.compare(
            model,
            output=tmp_path / "t",
            data=sentences(0, 16),
            evaluation_data=sentences(0, 20),
            **SMALL,
        )


@pytest.mark.parametrize(
    ("wish", "error", "match"),
    [
        ({"methods": ["sppp"]}, RequestError, "unknown method 'sppp'; did you mean 'spp'"),
        ({"ratios": []}, RequestError, "no ratios or no seeds were given"),
        ({"seeds": []}, RequestError, "no ratios or no seeds were given"),
        ({"ratios": [1.5]}, BudgetError, "--ratio 1.5 is the fraction of block parameters"),
        ({"refit": "best"}, RequestError, "unknown word 'best' after 'spp"),
        ({"choices": ["none.jsonl"]}, DataError, "there is no file none.jsonl"),
        ({"evaluation_windows": 0}, RequestError, "evaluation_windows is 0"),
        (
            {"methods": ["spp", Recipe(name="spp", method="fisher")]},
            RequestError,
            "two recipes are called 'spp' and differ; give one another name",
        ),
    ],
    ids=str,
)
def test_malformed_requests_are_refused_before_the_model_is_loaded(
    wish: dict[str, Any], error: type[PrunepathError], match: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=match):
        prunepath.compare("no/such-model", output=tmp_path / "t", **{**COMPARE, **wish})
    assert list(tmp_path.iterdir()) == []


def test_a_ratio_out_of_reach_is_refused_before_the_pass(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prunepath.statistics import run

    passes = count_passes(run, monkeypatch)
    with pytest.raises(BudgetError, match="the smallest model this path can give has"):
        prunepath.compare(model_folder, output=tmp_path, **{**COMPARE, "ratios": [0.1, 0.99]})
    assert passes == []
    assert list(tmp_path.glob("*.jsonl")) == []


def test_questions_need_a_language_model(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(json.dumps({"ctx": "a", "choices": ["b", "c"], "gold": 0}))
    with pytest.raises(RequestError, match="need a causal language model, and the task is text-cl"):
        prunepath.compare(
            classifier(tmp_path / "model"),
            output=tmp_path / "t",
            data=sentences(0, 40),
            evaluation_data=sentences(100, 20),
            choices=[file],
            **SMALL,
        )


def test_the_command_line(tmp_path: Path, model_folder: Path) -> None:
    words = ["compare", model_folder, "-o", tmp_path, "--methods", "fisher,magnitude", "--ratios"]
    words += ["0.2", "--evaluation-windows", 2, "--seeds", "0,1", "--quiet"]
    words += [f"--{name.replace('_', '-')}={value}" for name, value in SEARCH.items()]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    assert "+-" in result.stdout
    assert f"written to {tmp_path / 'compare.md'}" in result.stdout
    again = CliRunner().invoke(app, [str(word) for word in (*words, "--json")])
    rows = json.loads(again.stdout)
    assert [row["recipe"] for row in rows] == ["dense", *["fisher"] * 2, *["magnitude"] * 2] + [
        "random"
    ] * 2
    wrong = CliRunner().invoke(app, [str(word) for word in (*words, "--seeds", "x")])
    assert wrong.stderr.startswith("Error: --seeds takes whole numbers")
