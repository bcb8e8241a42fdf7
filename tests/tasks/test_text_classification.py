"""Sentences and pairs become samples with labels; accuracy and correlations come out right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from prunepath.errors import DataError, ModelError, RequestError
from prunepath.tasks.sentences import batch_outputs
from prunepath.tasks.task import DataRequest
from prunepath.tasks.text_classification import TEXT_CLASSIFICATION
from tests.tasks.tiny import opened, word_tokenizer

ROWS = [
    {"sentence": "a film that is fine", "label": 1},
    {"sentence": "poor", "label": 0},
    {"sentence": "not very long and not short", "label": 1},
]
ALL = DataRequest(count=None, labels=True)


@pytest.fixture(scope="module")
def bert() -> Any:
    return opened("BertForSequenceClassification", num_labels=2)


def test_sentences_become_one_rectangle(bert: Any) -> None:
    samples = TEXT_CLASSIFICATION.samples(bert, ROWS, ALL)
    assert set(samples.inputs) == {"input_ids", "attention_mask", "token_type_ids"}
    assert samples.inputs["attention_mask"].sum(1).tolist() == [7, 3, 8]
    assert samples.inputs["input_ids"].shape == (3, 8)
    assert samples.labels is not None
    assert samples.labels.tolist() == [1, 0, 1]
    assert samples.description == "rows given as an iterable, 3 texts"


def test_pairs_have_token_types(bert: Any) -> None:
    rows = [("the cat sat", "it was a cat", 1), ("a mat", "the cat", 0)]
    types = TEXT_CLASSIFICATION.samples(bert, rows, ALL).inputs["token_type_ids"]
    assert types[0].tolist() == [0] * 5 + [1] * 5


def test_inputs_the_model_does_not_know_are_left_out() -> None:
    model = opened(
        "DistilBertForSequenceClassification", n_layers=1, n_heads=2, dim=16, hidden_dim=24
    )
    samples = TEXT_CLASSIFICATION.samples(model, ROWS, DataRequest(count=2))
    assert set(samples.inputs) == {"input_ids", "attention_mask"}


def test_label_free_samples_need_no_labels_and_are_drawn_by_seed(bert: Any) -> None:
    rows = [" ".join(["cat"] * (1 + index % 9)) for index in range(40)]
    drawn = [
        TEXT_CLASSIFICATION.samples(bert, rows, DataRequest(count=8, extra=2, seed=seed))
        for seed in (0, 0, 1)
    ]
    assert [len(samples) for samples in drawn] == [10, 10, 10]
    assert drawn[0].labels is None
    assert drawn[0].fingerprint == drawn[1].fingerprint != drawn[2].fingerprint


def test_long_texts_are_cut_and_counted(bert: Any) -> None:
    rows = ["cat " * 50, "cat"]
    samples = TEXT_CLASSIFICATION.samples(bert, rows, DataRequest(count=None))
    assert samples.inputs["input_ids"].shape == (2, 24)
    assert samples.notes == ("1 of 2 texts fill all 24 tokens and may have been cut there",)
    narrow = TEXT_CLASSIFICATION.samples(bert, rows, DataRequest(count=None, window=6))
    assert narrow.inputs["input_ids"].shape == (2, 6)


def test_roberta_counts_positions_from_behind_the_padding() -> None:
    tokenizer = word_tokenizer(longest=int(1e30))
    roberta = opened("RobertaForSequenceClassification", tokenizer, pad_token_id=0)
    samples = TEXT_CLASSIFICATION.samples(roberta, ["cat " * 50], DataRequest(count=None))
    assert samples.inputs["input_ids"].shape == (1, 23)
    TEXT_CLASSIFICATION.output(roberta.model, samples.inputs)


def test_evaluation_is_what_rows_one_by_one_give(bert: Any) -> None:
    samples = TEXT_CLASSIFICATION.samples(bert, ROWS, ALL)
    with torch.no_grad():
        single = [
            TEXT_CLASSIFICATION.output(bert.model, row.inputs).argmax(-1).item()
            for row in samples.batches(1)
        ]
    right = sum(guess == row["label"] for guess, row in zip(single, ROWS, strict=True))
    found = TEXT_CLASSIFICATION.evaluate(bert.model, samples)
    assert (found.name, found.samples) == ("accuracy", 3)
    assert found.value == pytest.approx(100 * right / 3)
    assert set(found.others) == {"macro_f1"}


def test_batches_by_length_give_every_row_once(bert: Any) -> None:
    samples = TEXT_CLASSIFICATION.samples(bert, ROWS, ALL)
    rows, outputs = zip(*batch_outputs(TEXT_CLASSIFICATION, bert.model, samples), strict=True)
    order = torch.cat(rows)
    assert order.tolist() == [2, 0, 1]
    with torch.no_grad():
        expected = TEXT_CLASSIFICATION.output(bert.model, samples.inputs)[order]
    torch.testing.assert_close(torch.cat(outputs), expected)


def test_one_output_is_a_number() -> None:
    model = opened("BertForSequenceClassification", num_labels=1)
    rows = [
        {"text": row["sentence"], "score": value}
        for row, value in zip(ROWS, (0.5, "2", 3), strict=True)
    ]
    samples = TEXT_CLASSIFICATION.samples(model, rows, ALL)
    assert samples.labels is not None
    assert samples.labels.tolist() == [0.5, 2, 3]
    found = TEXT_CLASSIFICATION.evaluate(model.model, samples)
    assert found.name == "spearman"
    assert set(found.others) == {"pearson"}
    rows[1]["score"] = "two"
    with pytest.raises(DataError, match="row 1 has the label 'two', which is no number"):
        TEXT_CLASSIFICATION.samples(model, rows, ALL)


@pytest.mark.parametrize("label", [2, -1, "0.5", "good", "nan"])
def test_classes_the_model_does_not_have_are_named(bert: Any, label: object) -> None:
    rows = [*ROWS, {"sentence": "cat", "label": label}]
    with pytest.raises(DataError, match=r"row 3 has the label .*classes are LABEL_0, LABEL_1 \(0"):
        TEXT_CLASSIFICATION.samples(bert, rows, ALL)


def test_names_of_classes_and_empty_classes() -> None:
    names = {0: "bad", 1: "good", 2: "so so"}
    model = opened(
        "BertForSequenceClassification",
        num_labels=3,
        id2label=names,
        label2id={name: index for index, name in names.items()},
    )
    rows = [{"text": "cat", "label": "Good"}, {"text": "mat", "label": "bad"}]
    samples = TEXT_CLASSIFICATION.samples(model, rows, ALL)
    assert samples.labels is not None
    assert samples.labels.tolist() == [1, 0]
    assert samples.notes == ("no row is of the class so so",)


def test_several_labels_a_text_are_refused() -> None:
    model = opened("BertForSequenceClassification", problem_type="multi_label_classification")
    with pytest.raises(ModelError, match="takes one class or one number"):
        TEXT_CLASSIFICATION.samples(model, ROWS, ALL)


def test_no_data_is_refused(bert: Any) -> None:
    with pytest.raises(
        DataError, match="'text-classification' has no data of its own; give a .tsv"
    ):
        TEXT_CLASSIFICATION.samples(bert, None, ALL)


def test_no_padding_token_is_refused() -> None:
    model = opened("BertForSequenceClassification", word_tokenizer(pad=False))
    with pytest.raises(DataError, match="has no padding token, .* set tokenizer.pad_token"):
        TEXT_CLASSIFICATION.samples(model, ROWS, ALL)


def test_no_tokenizer_is_refused() -> None:
    with pytest.raises(DataError, match="has no tokenizer"):
        TEXT_CLASSIFICATION.samples(opened("BertForSequenceClassification", False), ROWS, ALL)


def test_window_beyond_the_context_is_refused(bert: Any) -> None:
    with pytest.raises(RequestError, match="window=99 was asked for, but the model takes 24"):
        TEXT_CLASSIFICATION.samples(bert, ROWS, DataRequest(count=None, window=99))


def test_evaluation_without_labels_is_refused(bert: Any) -> None:
    samples = TEXT_CLASSIFICATION.samples(bert, ROWS, DataRequest(count=None))
    with pytest.raises(RequestError, match="labels are needed"):
        TEXT_CLASSIFICATION.evaluate(bert.model, samples)


def test_too_few_rows_are_refused(bert: Any, tmp_path: Path) -> None:
    file = tmp_path / "few.tsv"
    file.write_text("sentence\tlabel\ncat\t1\n", encoding="utf-8")
    with pytest.raises(DataError, match="5 rows were asked for, but .*few.tsv has only 1"):
        TEXT_CLASSIFICATION.samples(bert, file, DataRequest(count=5))


@pytest.mark.parametrize(
    ("architecture", "config"),
    [("BertForSequenceClassification", {}), ("BartForSequenceClassification", {})],
)
def test_dummy_runs(architecture: str, config: dict[str, Any]) -> None:
    model = opened(architecture, **config).model
    samples = TEXT_CLASSIFICATION.dummy(model, 3, window=8)
    assert samples.inputs["input_ids"].shape == (3, 8)
    assert TEXT_CLASSIFICATION.output(model, samples.inputs).shape[0] == 3
    assert samples.fingerprint == TEXT_CLASSIFICATION.dummy(model, 3, window=8).fingerprint
