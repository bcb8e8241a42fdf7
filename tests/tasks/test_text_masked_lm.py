"""Hidden tokens: where, how many, and how a model is scored on them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from prunepath.errors import DataError, RequestError
from prunepath.tasks.masked_lm import MASKED_LM, NOT_HIDDEN
from prunepath.tasks.task import DataRequest
from tests.tasks.tiny import opened, word_tokenizer

PROSE = ["the cat sat on the mat and it was fine " * 12, "a film that is not very long " * 8]


@pytest.fixture(scope="module")
def bert() -> Any:
    return opened("BertForMaskedLM")


def test_windows_are_framed_and_partly_hidden(bert: Any) -> None:
    samples = MASKED_LM.samples(bert, PROSE, DataRequest(count=5, extra=1))
    ids, labels = samples.inputs["input_ids"], samples.labels
    assert labels is not None
    assert ids.shape == labels.shape == (6, 24)
    assert set(ids[:, 0].tolist()) == {2}
    assert set(ids[:, -1].tolist()) == {3}
    hidden = labels != NOT_HIDDEN
    assert hidden.sum(1).tolist() == [3] * 6  # 15 % of 22
    assert torch.equal(ids == 4, hidden)
    whole = ids.where(~hidden, labels)
    again = bert.tokenizer(bert.tokenizer.decode(whole[0, 1:-1]))["input_ids"]
    assert whole[0].tolist() == again


def test_same_seed_hides_the_same(bert: Any) -> None:
    first, again, other = (
        MASKED_LM.samples(bert, PROSE, DataRequest(count=4, seed=seed)) for seed in (0, 0, 1)
    )
    assert first.fingerprint == again.fingerprint != other.fingerprint
    fewer = MASKED_LM.samples(bert, PROSE, DataRequest(count=2))
    assert torch.equal(fewer.inputs["input_ids"], first.inputs["input_ids"][:2])


def test_packaged_text_serves_without_data(bert: Any) -> None:
    samples = MASKED_LM.samples(bert, None, DataRequest(count=2, window=12))
    assert samples.inputs["input_ids"].shape == (2, 12)
    assert "packaged public-domain prose, calibration split" in samples.description


def test_evaluation_counts_hidden_tokens_only(bert: Any) -> None:
    samples = MASKED_LM.samples(bert, PROSE, DataRequest(count=5))
    assert samples.labels is not None
    with torch.no_grad():
        logits = MASKED_LM.output(bert.model, samples.inputs)
    keep = samples.labels != NOT_HIDDEN
    nll = torch.nn.functional.cross_entropy(logits[keep], samples.labels[keep])
    right = (logits.argmax(-1) == samples.labels)[keep].float().mean()
    found = MASKED_LM.evaluate(bert.model, samples)
    assert found.value == pytest.approx(100 * float(right))
    assert found.others["pseudo_perplexity"] == pytest.approx(math.exp(float(nll)), rel=1e-5)
    assert found.others["tokens"] == 15
    assert float(MASKED_LM.loss(logits, samples)) == pytest.approx(float(nll))


def test_samples_kept_without_labels_compare_every_token(bert: Any) -> None:
    samples = MASKED_LM.samples(bert, PROSE, DataRequest(count=2))
    bare = replace(samples, labels=None)
    with torch.no_grad():
        logits = MASKED_LM.output(bert.model, samples.inputs)
    drawn = MASKED_LM.draw(logits.clone(), bare, "kl", torch.Generator().manual_seed(0))
    assert int((drawn.abs().sum(-1) > 0).sum()) == 48
    with pytest.raises(RequestError, match="kept without labels"):
        MASKED_LM.evaluate(bert.model, bare)


def test_body_stops_before_the_vocabulary(bert: Any) -> None:
    samples = MASKED_LM.dummy(bert.model, 2)
    called: list[Any] = []
    handle = bert.model.cls.register_forward_hook(lambda *_: called.append(1))
    MASKED_LM.body(bert.model, samples.inputs)
    handle.remove()
    assert not called


def test_dummy_runs(bert: Any) -> None:
    samples = MASKED_LM.dummy(bert.model, 3, window=10)
    assert MASKED_LM.output(bert.model, samples.inputs).shape == (3, 10, 23)
    assert samples.labels is not None


def test_no_mask_token_is_refused() -> None:
    model = opened("BertForMaskedLM", word_tokenizer(mask=False))
    with pytest.raises(DataError, match="has no mask token to hide tokens with"):
        MASKED_LM.samples(model, PROSE, DataRequest(count=1))
