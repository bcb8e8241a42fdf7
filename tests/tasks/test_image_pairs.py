"""Images with captions become pixel values and tokens, whatever they lie in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from prunepath.data.pairs import pair_samples
from prunepath.errors import DataError, RequestError
from prunepath.tasks.task import DataRequest
from tests.tasks.pictures import SETTINGS, picture
from tests.tasks.tiny import word_tokenizer

ALL = DataRequest(count=None)


def _opened(tokenizer: Any = None) -> Any:
    text = SimpleNamespace(max_position_embeddings=8)
    config = SimpleNamespace(get_text_config=lambda: text, num_labels=0)
    return SimpleNamespace(
        model=SimpleNamespace(config=config),
        tokenizer=word_tokenizer() if tokenizer is None else tokenizer or None,
        image_settings=SETTINGS,
        model_id="tiny model",
    )


def _folder(root: Path, captions: list[list[str]]) -> Path:
    root.mkdir(exist_ok=True)
    for index, lines in enumerate(captions):
        picture(index).save(root / f"{index}.png")
        if lines:
            (root / f"{index}.txt").write_text("\n".join(lines) + "\n")
    return root


def test_text_files_beside_images_hold_their_captions(tmp_path: Path) -> None:
    data = _folder(tmp_path / "data", [["a cat", "the cat sat"], ["a film"], []])
    samples = pair_samples(_opened(), data, ALL)
    assert samples.labels is not None
    assert len(samples) == 3
    assert sorted(samples.labels.tolist())[0] != sorted(samples.labels.tolist())[2]
    assert len(set(samples.labels[:2].tolist())) == 2  # first captions first
    assert samples.inputs["pixel_values"].shape == (3, 3, 16, 16)
    assert samples.inputs["input_ids"].shape == (3, 5)  # [CLS] the cat sat [SEP]
    assert sorted(samples.inputs["attention_mask"].sum(1).tolist()) == [4, 4, 5]
    assert samples.description == f"{data}, 3 pairs"
    assert samples.notes == ("skipped 1 images without a caption: 2.png",)
    shutil.make_archive(str(tmp_path / "all"), "zip", data)
    assert pair_samples(_opened(), tmp_path / "all.zip", ALL).fingerprint == samples.fingerprint


def test_tables_name_images_relative_to_themselves(tmp_path: Path) -> None:
    _folder(tmp_path / "images", [[], [], []])
    rows = [("images/0.png", "a cat"), ("images/1.png", "a film"), ("images/0.png", "the cat")]
    (tmp_path / "metadata.jsonl").write_text(
        "\n".join(json.dumps({"file_name": name, "caption": text}) for name, text in rows)
    )
    (tmp_path / "pairs.csv").write_text(
        "image,words\n" + "\n".join(f"{name},{text}" for name, text in rows)
    )
    found = pair_samples(_opened(), tmp_path / "metadata.jsonl", ALL)
    assert found.labels is not None
    assert sorted(found.labels.tolist()) in ([0, 0, 1], [0, 1, 1])
    assert pair_samples(_opened(), tmp_path, ALL).fingerprint == found.fingerprint
    named = DataRequest(count=None, field="words")
    assert pair_samples(_opened(), tmp_path / "pairs.csv", named).fingerprint == found.fingerprint
    with pytest.raises(DataError, match=r"no column of a usual name \(caption.*it has: image, wor"):
        pair_samples(_opened(), tmp_path / "pairs.csv", ALL)
    with pytest.raises(RequestError, match="has no splits"):
        pair_samples(_opened(), tmp_path / "pairs.csv", DataRequest(count=None, split="train"))


def test_images_that_are_not_there_are_counted_once(tmp_path: Path) -> None:
    _folder(tmp_path, [[]])
    rows = [("0.png", "a cat"), ("gone.png", "a film"), ("gone.png", "the film")]
    (tmp_path / "pairs.jsonl").write_text(
        "\n".join(json.dumps({"image": name, "text": text}) for name, text in rows)
    )
    found = pair_samples(_opened(), tmp_path / "pairs.jsonl", ALL)
    assert len(found) == 1
    assert found.notes == ("skipped 1 unreadable image: gone.png (no such file)",)
    with pytest.raises(DataError, match="2 images were asked for, but .* only 1"):
        pair_samples(_opened(), tmp_path / "pairs.jsonl", DataRequest(count=2))


def test_datasets_and_iterables_hold_pairs() -> None:
    datasets = pytest.importorskip("datasets")
    pictures = [picture(0), picture(1)]
    texts = [["a cat", "the cat"], ["a film"]]
    plain = pair_samples(_opened(), list(zip(pictures, texts, strict=True)), ALL)
    data = datasets.Dataset.from_dict(
        {"image": pictures, "captions": texts},
        features=datasets.Features(
            {"image": datasets.Image(), "captions": datasets.List(datasets.Value("string"))}
        ),
    )
    assert pair_samples(_opened(), data, ALL).fingerprint == plain.fingerprint
    streamed = pair_samples(_opened(), data.to_iterable_dataset(), DataRequest(count=2, extra=5))
    assert len(streamed) == 3
    one = pair_samples(_opened(), iter([{"image": pictures[0], "text": "a cat"}]), ALL)
    assert len(one) == 1


def test_captions_are_cut_and_padded_as_the_model_wants() -> None:
    long = [(picture(), "the cat sat on a mat and it was fine and long"), (picture(1), "a cat")]
    found = pair_samples(_opened(), long, ALL)
    assert found.inputs["input_ids"].shape == (2, 8)
    narrow = pair_samples(_opened(), long, DataRequest(count=None, window=4))
    assert narrow.inputs["input_ids"].shape == (2, 4)
    full = pair_samples(_opened(), long[1:], ALL, full_width=True)
    assert full.inputs["input_ids"].shape == (1, 8)
    assert "attention_mask" not in full.inputs
    assert torch.equal(full.inputs["input_ids"][0, 4:], torch.zeros(4, dtype=torch.int64))


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    data = _folder(tmp_path, [[], []])
    for request, tokenizer, source, message in (
        (ALL, None, data, "none of the 2 images of .* has a caption"),
        (ALL, False, data, "'tiny model' has no tokenizer beside it, and captions were given"),
        (ALL, word_tokenizer(pad=False), data, "has no padding token"),
        (ALL, None, [(picture(), 3)], "the caption of image 0 is a int"),
        (ALL, None, None, "no data in the package"),
    ):
        with pytest.raises(DataError, match=message):
            pair_samples(_opened(tokenizer), source, request)
