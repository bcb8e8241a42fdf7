"""Text to text: what the decoder reads, what counts, and the model's own answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from prunepath.errors import DataError, ModelError, RequestError
from prunepath.tasks.decoding import decoder_inputs
from prunepath.tasks.seq2seq_lm import SEQ2SEQ_LM
from prunepath.tasks.task import DataRequest
from tests.tasks.tiny import SHAPE, opened

ROWS = [
    {"source": "the cat sat on the mat", "target": "a cat"},
    {"source": "a film that is fine", "target": "it was not very long"},
    {"source": "poor", "target": "short"},
]
ALL = DataRequest(count=None, labels=True)
T5: dict[str, Any] = {
    "vocab_size": SHAPE["vocab_size"],
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 1,
    "num_heads": 2,
    "pad_token_id": 0,
    "eos_token_id": 3,
    "decoder_start_token_id": 0,
}


def make(architecture: str) -> Any:
    return opened(architecture, **(T5 if architecture.startswith("T5") else {}))


@pytest.fixture(
    scope="module", params=["T5ForConditionalGeneration", "BartForConditionalGeneration"]
)
def model(request: pytest.FixtureRequest) -> Any:
    return make(request.param)


def test_decoder_reads_labels_shifted(model: Any) -> None:
    samples = SEQ2SEQ_LM.samples(model, ROWS, ALL)
    labels, read = samples.labels, samples.inputs["decoder_input_ids"]
    assert labels is not None
    assert labels.shape == read.shape == (3, 7)
    mask = samples.inputs["decoder_attention_mask"]
    assert mask.sum(1).tolist() == [4, 7, 3]
    assert torch.equal(mask.bool(), labels != -100)
    assert set(read[:, 0].tolist()) == {model.model.config.decoder_start_token_id}
    assert torch.equal(read[1, 1:], labels[1, :-1])
    assert samples.description == "rows given as an iterable, 3 pairs of texts"


def test_loss_is_what_the_model_itself_computes(model: Any) -> None:
    samples = SEQ2SEQ_LM.samples(model, ROWS, ALL)
    assert samples.labels is not None
    texts = {name: samples.inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        own = model.model(**texts, labels=samples.labels, use_cache=False).loss
        logits = SEQ2SEQ_LM.output(model.model, samples.inputs)
    assert float(SEQ2SEQ_LM.loss(logits, samples)) == pytest.approx(float(own), rel=1e-5)
    found = SEQ2SEQ_LM.evaluate(model.model, samples)
    assert found.name == "perplexity"
    assert found.value == pytest.approx(math.exp(float(own)), rel=1e-5)
    assert found.others["tokens"] == 14


def test_without_targets_the_model_answers_itself(model: Any) -> None:
    rows = [row["source"] for row in ROWS]
    samples = SEQ2SEQ_LM.samples(model, rows, DataRequest(count=None))
    assert samples.labels is None
    assert samples.description.endswith("3 texts, answered by the dense model")
    mask = samples.inputs["decoder_attention_mask"].bool()
    with torch.no_grad():
        said = SEQ2SEQ_LM.output(model.model, samples.inputs).argmax(-1)
    # Every token it reads after the first is the one it named at the position before.
    followed = samples.inputs["decoder_input_ids"][:, 1:] == said[:, :-1]
    assert followed[mask[:, 1:]].all()


def test_both_sides_differ_in_width(model: Any) -> None:
    rows = [("the cat sat", "it was fine"), ("a", "cat")]
    samples = SEQ2SEQ_LM.samples(model, rows, ALL)
    assert samples.inputs["input_ids"].shape == (2, 5)
    assert samples.inputs["decoder_input_ids"].shape == (2, 6)
    assert not samples.inputs["decoder_attention_mask"][:, -1].any()


def test_dummy_runs(model: Any) -> None:
    samples = SEQ2SEQ_LM.dummy(model.model, 2)
    assert SEQ2SEQ_LM.output(model.model, samples.inputs).shape == (2, 16, 23)


def test_models_without_their_own_shift() -> None:
    model = make("T5ForConditionalGeneration").model
    labels = torch.tensor([[5, 6, 3], [7, 3, -100]])

    class Bare:
        config = model.config

    assert decoder_inputs(Bare(), labels)["decoder_input_ids"].tolist() == [[0, 5, 6], [0, 7, 0]]
    torch.testing.assert_close(decoder_inputs(Bare(), labels), decoder_inputs(model, labels))
    model.config.decoder_start_token_id = None
    with pytest.raises(ModelError, match="has no decoder_start_token_id"):
        decoder_inputs(Bare(), labels)


def test_evaluation_needs_targets(model: Any, tmp_path: Path) -> None:
    file = tmp_path / "only.jsonl"
    file.write_text('{"source": "a cat"}\n', encoding="utf-8")
    with pytest.raises(
        DataError, match=r"no label column of a usual name \(target or .*has: source"
    ):
        SEQ2SEQ_LM.samples(model, file, ALL)
    samples = SEQ2SEQ_LM.samples(model, file, DataRequest(count=None))
    with pytest.raises(RequestError, match="read without labels"):
        SEQ2SEQ_LM.evaluate(model.model, samples)


def test_targets_that_are_no_text_are_named(model: Any) -> None:
    rows = [{"source": "a cat", "target": 3}]
    with pytest.raises(DataError, match="column 'target' of row 0 holds a int, not a text"):
        SEQ2SEQ_LM.samples(model, rows, ALL)
