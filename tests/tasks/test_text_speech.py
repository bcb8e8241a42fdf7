"""Speech: spectrograms in, transcripts out, errors counted in words or tokens."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from prunepath.errors import DataError, MissingExtraError, RequestError
from prunepath.tasks.speech import SPEECH, SPEECH_TOKENS
from prunepath.tasks.task import DataRequest
from tests.tasks.tiny import SEQ2SEQ, opened

RATE = 16_000
NOISE = np.random.default_rng(0).normal(0, 0.1, size=(3, 12_000)).astype(np.float32)
SAID = ["The cat sat.", "a film that is fine", "poor"]
ROWS = [
    {"audio": {"array": sound, "sampling_rate": RATE}, "text": text}
    for sound, text in zip(NOISE, SAID, strict=True)
]
ALL = DataRequest(count=None, labels=True)


@pytest.fixture(scope="module")
def whisper() -> Any:
    import transformers

    make: Any = transformers.WhisperFeatureExtractor
    extractor = make(feature_size=8, sampling_rate=RATE, hop_length=400, chunk_length=1, n_fft=400)
    return opened(
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
        **{name: SEQ2SEQ[name] for name in ("d_model", "vocab_size", "pad_token_id")},
    )


def test_recordings_become_spectrograms_and_shifted_transcripts(whisper: Any) -> None:
    samples = SPEECH.samples(whisper, ROWS, ALL)
    assert samples.inputs["input_features"].shape == (3, 8, 40)
    assert samples.references == tuple(SAID)
    assert samples.labels is not None
    # the start token is read, never to be named: "[CLS] poor [SEP]" is two labels
    assert samples.labels[2].tolist()[:3] == [whisper.tokenizer("poor")["input_ids"][1], 3, -100]
    assert set(samples.inputs["decoder_input_ids"][:, 0].tolist()) == {2}
    assert samples.rows(1, 2).references == ("a film that is fine",)


def test_without_transcripts_the_model_answers_itself(whisper: Any) -> None:
    rows = [{"audio": row["audio"]} for row in ROWS]
    samples = SPEECH.samples(whisper, rows, DataRequest(count=2))
    assert (samples.labels, samples.references) == (None, ())
    assert samples.description.endswith("2 recordings, written down by the dense model")
    mask = samples.inputs["decoder_attention_mask"].bool()
    with torch.no_grad():
        said = SPEECH.output(whisper.model, samples.inputs).argmax(-1)
    followed = samples.inputs["decoder_input_ids"][:, 1:] == said[:, :-1]
    assert followed[mask[:, 1:]].all()


def test_word_error_rate(whisper: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jiwer")
    samples = SPEECH.samples(whisper, ROWS, ALL)
    assert SPEECH.evaluate(whisper.model, samples).name == "wer"
    heard = ["the CAT sat", "a film is fine", "very poor"]  # one word lost, one too many, of nine
    monkeypatch.setattr("prunepath.tasks.hearing.hear", lambda *_: iter(heard))
    found = SPEECH.evaluate(whisper.model, samples)
    assert found.value == pytest.approx(100 * 2 / 9)
    assert not found.higher_is_better
    assert found.others == {"words": 9}


def test_token_accuracy_needs_no_package(whisper: Any) -> None:
    samples = SPEECH_TOKENS.samples(whisper, ROWS, ALL)
    assert samples.labels is not None
    with torch.no_grad():
        right = SPEECH.output(whisper.model, samples.inputs).argmax(-1) == samples.labels
    found = SPEECH_TOKENS.evaluate(whisper.model, samples)
    assert found.value == pytest.approx(100 * int(right.sum()) / int((samples.labels >= 0).sum()))
    assert found.name == "token_accuracy"


def test_word_error_rate_without_jiwer(whisper: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = SPEECH.samples(whisper, ROWS, ALL)
    monkeypatch.setitem(sys.modules, "jiwer", None)
    with pytest.raises(MissingExtraError, match=r"word error rate .* needs the package jiwer"):
        SPEECH.evaluate(whisper.model, samples)


def test_long_recordings_are_cut_and_counted(whisper: Any) -> None:
    rows = [{"audio": {"array": np.tile(NOISE[0], 3), "sampling_rate": RATE}, "text": "poor"}]
    notes = SPEECH.samples(whisper, rows, ALL).notes
    assert notes == ("1 of 1 recordings are longer than the model hears and were cut",)


def test_bfloat16_model_takes_the_spectrograms(whisper: Any) -> None:
    from copy import deepcopy

    samples = SPEECH.samples(whisper, ROWS, ALL)
    model = deepcopy(whisper.model).to(torch.bfloat16)
    assert SPEECH.output(model, samples.inputs).dtype == torch.bfloat16


def test_dummy_runs(whisper: Any) -> None:
    samples = SPEECH.dummy(whisper.model, 2)
    assert samples.inputs["input_features"].shape == (2, 8, 40)
    assert SPEECH.output(whisper.model, samples.inputs).shape == (2, 16, 23)


def test_complaints(whisper: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'speech' has no data of its own; give a folder of .wav"):
        SPEECH.samples(whisper, None, ALL)
    with pytest.raises(RequestError, match="split='test' was asked for"):
        SPEECH.samples(whisper, ROWS, DataRequest(count=None, split="test"))
    bare = SimpleNamespace(**{**vars(whisper), "processor": None})
    with pytest.raises(DataError, match="has no feature extractor beside it"):
        SPEECH.samples(bare, ROWS, ALL)
    with pytest.raises(DataError, match="row 0 has no transcript"):
        SPEECH.samples(whisper, [{"audio": ROWS[0]["audio"]}], ALL)
    samples = SPEECH.samples(whisper, [{"audio": ROWS[0]["audio"]}], DataRequest(count=1))
    with pytest.raises(RequestError, match="transcripts are needed"):
        SPEECH.evaluate(whisper.model, samples)
