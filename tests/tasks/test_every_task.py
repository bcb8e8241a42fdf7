"""Every task end to end, as a user would: search, extract both layouts, load, evaluate, inspect.

A task joins by one function in `MODELS`: it saves a tiny model with what belongs to it and returns
the folder and data with labels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import prunepath
from prunepath.methods.method import METHODS
from prunepath.path import SolutionPath
from tests.tasks import pictures, tiny

SEARCH: dict[str, Any] = {
    "windows": 8,
    "moment_windows": 4,
    "refit_windows": 4,
    "holdout_windows": 4,
}
SENTENCES = ["a film that is fine", "poor and not long", "the cat sat on mat", "it was very short"]
Made = tuple[Path, Any]


def save(opened: Any, folder: Path) -> Path:
    """What a Hub folder holds."""
    import json

    opened.model.save_pretrained(folder)
    if opened.tokenizer is not None:
        opened.tokenizer.save_pretrained(folder)
    if opened.processor is not None:
        opened.processor.save_pretrained(folder)
    if opened.image_settings is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(opened.image_settings))
    return folder


def text_classifier(folder: Path) -> Made:
    opened = tiny.opened("BertForSequenceClassification", num_labels=2)
    rows = [{"sentence": SENTENCES[i % 4], "label": i % 2} for i in range(24)]
    return save(opened, folder), rows


def regression(folder: Path) -> Made:
    opened = tiny.opened("RobertaForSequenceClassification", num_labels=1)
    rows = [
        {"sentence1": SENTENCES[i % 4], "sentence2": SENTENCES[(i + i // 4) % 4], "score": i / 8}
        for i in range(24)
    ]
    return save(opened, folder), rows


def sentence_encoder(folder: Path) -> Made:
    opened = tiny.opened("BertModel")
    rows = [
        {"sentence1": SENTENCES[i % 4], "sentence2": SENTENCES[(i + i // 4) % 4], "score": i % 5}
        for i in range(24)
    ]
    return save(opened, folder), rows


def masked_lm(folder: Path) -> Made:
    return save(tiny.opened("BertForMaskedLM"), folder), [{"text": t} for t in SENTENCES * 40]


def seq2seq(folder: Path) -> Made:
    opened = tiny.opened("BartForConditionalGeneration", max_position_embeddings=32)
    rows = [{"source": SENTENCES[i % 4], "target": SENTENCES[(i + 1) % 4]} for i in range(24)]
    return save(opened, folder), rows


def image_classifier(folder: Path) -> Made:
    opened = pictures.opened(pictures.vit())
    images = pictures.draw_folders(folder.parent / "images", {"cat": 8, "dog": 8, "bird": 8})
    return save(opened, folder), images


def speech(folder: Path) -> Made:
    import transformers

    make: Any = transformers.WhisperFeatureExtractor
    extractor = make(
        feature_size=8, sampling_rate=16_000, hop_length=400, chunk_length=1, n_fft=400
    )
    opened = tiny.opened(
        "WhisperForConditionalGeneration",
        processor=extractor,
        num_mel_bins=8,
        max_source_positions=20,
        max_target_positions=16,
        begin_suppress_tokens=None,
        suppress_tokens=None,
        eos_token_id=3,
        decoder_start_token_id=2,
        bos_token_id=2,
        **{name: tiny.SEQ2SEQ[name] for name in ("d_model", "vocab_size", "pad_token_id")},
    )
    noise = np.random.default_rng(0).normal(0, 0.1, size=(18, 12_000)).astype(np.float32)
    rows = [
        {"audio": {"array": sound, "sampling_rate": 16_000}, "text": SENTENCES[i % 4]}
        for i, sound in enumerate(noise)
    ]
    return save(opened, folder), rows


MODELS: dict[str, tuple[str, Callable[[Path], Made]]] = {
    "text classifier": ("text-classification", text_classifier),
    "regression": ("text-classification", regression),
    "sentence encoder": ("sentence-embedding", sentence_encoder),
    "masked lm": ("masked-lm", masked_lm),
    "seq2seq": ("seq2seq-lm", seq2seq),
    "image classifier": ("image-classification", image_classifier),
    "speech": ("speech", speech),
}
every_task = pytest.mark.parametrize("what", MODELS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """Folder and data of a model, made once."""
    known: dict[str, Made] = {}

    def make(what: str) -> Made:
        if what not in known:
            known[what] = MODELS[what][1](tmp_path_factory.mktemp("model") / "dense")
        return known[what]

    return make


@every_task
def test_search_extract_load_evaluate(
    what: str, made: Callable[[str], Made], tmp_path: Path
) -> None:
    folder, data = made(what)
    path = prunepath.search(folder, data=data, output=tmp_path / "path", **SEARCH)
    assert path.provenance.task == MODELS[what][0]
    for layout in ("per-layer", "uniform"):
        extraction = prunepath.extract(
            tmp_path / "path",
            ratio=0.3,
            layout=layout,
            multiple=1,
            floor=1,
            model=folder,
            output=tmp_path / layout,
        )
        assert extraction.verification is not None  # read back in a fresh process, and equal
        assert extraction.allocation.ratio >= 0.3
        loaded = prunepath.load(tmp_path / layout)
        dense = prunepath.load(folder)
        saved = sum(p.numel() for p in loaded.parameters())
        assert saved == extraction.allocation.cost.params
        assert saved < sum(p.numel() for p in dense.parameters())
    options: dict[str, Any] = {"ratio": 0.3, "multiple": 1, "floor": 1, "model": folder}
    tuned = prunepath.extract(tmp_path / "path", refit="scales", rearrange=True, **options)
    assert tuned.rearranged["damage after"] <= tuned.rearranged["damage before"]
    assert tuned.refit["held-out loss with"] <= tuned.refit["held-out loss without"]
    assert sum(p.numel() for p in tuned.model.parameters()) == tuned.allocation.cost.params
    swapped = prunepath.extract(tmp_path / "path", refit="none", rearrange="swaps", **options)
    assert swapped.rearranged["distance after"] <= swapped.rearranged["distance before"]
    assert swapped.allocation.cost == tuned.allocation.cost
    result = prunepath.evaluate(tmp_path / "uniform", data=data, speed=False)
    assert np.isfinite(result.metric.value)
    found = prunepath.inspect(folder)
    assert {"qk_coordinate", "vo_coordinate", "ffn_channel"} <= set(found.structure.kinds)


@every_task
@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_orders_every_task(
    what: str, method: str, made: Callable[[str], Made], tmp_path: Path
) -> None:
    folder, data = made(what)
    needs_labels = METHODS[method]().objective() == "task"  # and some of these data have none
    options = {**SEARCH, "objective": "kl"} if needs_labels else SEARCH
    path = prunepath.search(folder, data=data, output=tmp_path / "path", method=method, **options)
    again = SolutionPath.from_pretrained(tmp_path / "path")
    for group in path.structure.groups:
        assert np.isfinite(path.damage[group.name]).all()
        assert np.array_equal(path.rank[group.name], again.rank[group.name])


def test_a_search_is_the_same_twice(made: Callable[[str], Made], tmp_path: Path) -> None:
    folder, data = made("image classifier")
    paths = [prunepath.search(folder, data=data, output=tmp_path / name, **SEARCH) for name in "ab"]
    for group in paths[0].structure.groups:
        one, other = (path.damage[group.name] for path in paths)
        assert np.array_equal(one, other)
        assert torch.isfinite(torch.from_numpy(one)).all()
