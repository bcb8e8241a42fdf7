"""What calibration and evaluation data share, for samples of every kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.tasks import tiny

from prunepath.data.overlap import require_disjoint, shared_samples
from prunepath.data.samples import Samples
from prunepath.errors import DataError


def text(*rows: list[int], labels: Any = None) -> Samples:
    """Rows of token ids, padded on the right."""
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return Samples(inputs={"input_ids": ids, "attention_mask": mask}, labels=labels)


def test_padding_is_no_content() -> None:
    one = text([5, 6], [7, 8, 9])
    other = text([7, 8, 9], [5, 6, 7, 8])
    found = shared_samples(one, other)
    assert (found.calibration, found.evaluation, found.short) == ((1,), (0,), True)


def test_a_long_stretch_is_found_wherever_it_lies() -> None:
    book = list(range(100, 200))
    found = shared_samples(text(book[10:60], [1, 2]), text([3, 4], [9, *book[20:55]], book[70:]))
    assert (found.calibration, found.evaluation, found.short) == ((0,), (1,), False)
    assert shared_samples(text(book[10:60]), text([9, *book[20:51]])).evaluation == ()


def test_images_are_equal_or_not() -> None:
    pixels = torch.randn(3, 3, 4, 4)
    one = Samples(inputs={"pixel_values": pixels, "input_ids": torch.tensor([[1], [1], [1]])})
    other = Samples(inputs={"pixel_values": pixels[2:] * 1.0, "input_ids": torch.tensor([[2]])})
    found = shared_samples(one, other)
    assert (found.calibration, found.evaluation, found.short) == ((2,), (0,), False)
    changed = Samples(inputs={"pixel_values": pixels[2:] + 1e-6})
    assert shared_samples(one, changed).evaluation == ()


def test_hidden_tokens_hide_nothing(tiny_text: str) -> None:
    from prunepath.tasks.task import TASKS, DataRequest

    opened = tiny.opened("BertForMaskedLM", max_position_embeddings=64)
    opened.tokenizer.model_max_length = 64
    task = TASKS["masked-lm"]
    book = [" ".join(tiny.WORDS * 20)]
    drawn = [
        task.samples(opened, book, DataRequest(count=2, seed=seed, labels=True)) for seed in (1, 2)
    ]
    assert not torch.equal(drawn[0].inputs["input_ids"], drawn[1].inputs["input_ids"])
    assert shared_samples(drawn[0], drawn[1]).evaluation == (0, 1)


def test_short_texts_that_recur_are_left_out() -> None:
    rows = [[index, index + 1] for index in range(20)]
    calibration = text(*rows)
    left = require_disjoint(calibration, text([50, 51], rows[3]))
    assert left.inputs["input_ids"].tolist() == [*rows[:3], *rows[4:]]
    assert left.fingerprint != calibration.fingerprint
    assert left.description.endswith("without 1 of those")
    assert require_disjoint(calibration, text([50, 51])) is calibration


def test_more_than_chance_is_refused_by_name() -> None:
    rows = [[index, index + 1] for index in range(20)]
    with pytest.raises(DataError, match="overlap: 3 of 4 evaluation samples .* first is sample 1;"):
        require_disjoint(text(*rows), text([90], *rows[:3]))
    book = list(range(100, 200))
    with pytest.raises(
        DataError, match="overlap: 1 of 1 .* give other --data or --evaluation-data"
    ):
        require_disjoint(text(*rows, book), text(book[:40]))


def test_references_and_labels_follow_their_rows() -> None:
    samples = Samples(
        inputs={"input_ids": torch.arange(6).view(3, 2)},
        labels=torch.tensor([7, 8, 9]),
        references=("a", "b", "c"),
    )
    left = samples.without({1})
    assert left.labels is not None
    assert left.labels.tolist() == [7, 9]
    assert left.references == ("a", "c")
