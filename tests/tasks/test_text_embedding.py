"""Sentence embeddings: pooled over what is no padding, scored by pairs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from prunepath.errors import DataError, ModelError, RequestError
from prunepath.tasks.sentence_embedding import SENTENCE_EMBEDDING
from prunepath.tasks.task import DataRequest
from tests.tasks.tiny import opened

PAIRS = [
    ("the cat sat on the mat", "a cat sat", 4.0),
    ("a film that is fine", "the mat", 0.5),
    ("not very long", "very short", 2.5),
]


@pytest.fixture(scope="module")
def bert() -> Any:
    return opened("BertModel")


def test_pairs_with_scores_are_neighbouring_rows(bert: Any) -> None:
    samples = SENTENCE_EMBEDDING.samples(bert, PAIRS, DataRequest(count=None, labels=True))
    assert len(samples) == 6
    assert samples.labels is not None
    assert samples.labels.tolist() == [4.0, 4.0, 0.5, 0.5, 2.5, 2.5]
    assert samples.inputs["attention_mask"].sum(1).tolist() == [8, 5, 7, 4, 5, 4]


def test_count_is_of_sentences(bert: Any) -> None:
    free = SENTENCE_EMBEDDING.samples(bert, PAIRS, DataRequest(count=3, extra=1))
    assert (len(free), free.labels) == (4, None)
    singles = [first for first, _, _ in PAIRS]
    assert len(SENTENCE_EMBEDDING.samples(bert, singles, DataRequest(count=2))) == 2
    paired = SENTENCE_EMBEDDING.samples(bert, PAIRS, DataRequest(count=3, labels=True))
    assert len(paired) == 4
    with pytest.raises(DataError, match="7 sentences were asked for, but .* has only 6"):
        SENTENCE_EMBEDDING.samples(bert, PAIRS, DataRequest(count=7))


def test_embedding_has_length_one_and_ignores_padding(bert: Any) -> None:
    samples = SENTENCE_EMBEDDING.samples(bert, PAIRS, DataRequest(count=None))
    with torch.no_grad():
        together = SENTENCE_EMBEDDING.output(bert.model, samples.inputs)
        width = int(samples.inputs["attention_mask"][3].sum())
        alone = {name: value[3:4, :width] for name, value in samples.inputs.items()}
        single = SENTENCE_EMBEDDING.output(bert.model, alone)
        hidden = bert.model(**alone).last_hidden_state.mean(1)
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(6))
    torch.testing.assert_close(single[0], together[3])
    torch.testing.assert_close(single, hidden / hidden.norm(dim=-1, keepdim=True))


def test_spearman_of_cosines(bert: Any) -> None:
    samples = SENTENCE_EMBEDDING.samples(bert, PAIRS, DataRequest(count=None, labels=True))
    with torch.no_grad():
        embeddings = SENTENCE_EMBEDDING.output(bert.model, samples.inputs)
    cosines = torch.cosine_similarity(embeddings[0::2], embeddings[1::2])
    ranks, expected = cosines.argsort().argsort() + 1, torch.tensor([3, 1, 2])
    rho = 1 - 6 * float((ranks - expected).square().sum()) / (3 * 8)
    found = SENTENCE_EMBEDDING.evaluate(bert.model, samples)
    assert (found.name, found.samples) == ("spearman", 3)
    assert found.value == pytest.approx(100 * rho)


def test_scores_need_pairs(bert: Any) -> None:
    rows = [{"sentence": "a cat", "score": 1}]
    with pytest.raises(DataError, match="row 0 has one sentence, and scores are of two"):
        SENTENCE_EMBEDDING.samples(bert, rows, DataRequest(count=None, labels=True))
    samples = SENTENCE_EMBEDDING.samples(bert, PAIRS, DataRequest(count=None))
    with pytest.raises(RequestError, match="these samples are single sentences"):
        SENTENCE_EMBEDDING.evaluate(bert.model, samples)


def test_model_without_token_vectors_is_refused() -> None:
    model = opened("BertForSequenceClassification").model
    samples = SENTENCE_EMBEDDING.dummy(model, 2)
    with pytest.raises(ModelError, match="gives no token vectors"):
        SENTENCE_EMBEDDING.output(model, samples.inputs)


def test_dummy_runs(bert: Any) -> None:
    samples = SENTENCE_EMBEDDING.dummy(bert.model, 2)
    assert samples.inputs["input_ids"].shape == (2, 24)
    assert SENTENCE_EMBEDDING.output(bert.model, samples.inputs).shape == (2, 16)
