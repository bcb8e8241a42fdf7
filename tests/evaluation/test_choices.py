"""Multiple choice: every score equals the one computed alone, without padding or batches."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from prunepath.errors import DataError, NumericsError, RequestError
from prunepath.evaluation import choices, choices_accuracy
from prunepath.evaluation.choices import read_questions

Factory = Callable[..., Any]

QUESTIONS = [
    {"ctx": "A path says in", "choices": ["which order", "the end of all of it", "no"], "gold": 1},
    {"ctx": "You have a", "choices": ["smaller model", "part"], "gold": 0},
    {"ctxs": ["Cut at the path", "Cut"], "cont": " and you have a model", "gold": 1},
    {"ctx": "The last ones", "choices": ["go first", "matter", "enter", "do"], "gold": 3},
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "quiz.jsonl"
    made.write_text("\n".join(map(json.dumps, QUESTIONS)) + "\n")
    return made


def score_alone(model: Any, tokenizer: Any, context: str, continuation: str) -> float:
    """The definition: mean log-likelihood per token of the continuation, one sequence at a time."""
    ids = tokenizer(context + continuation)["input_ids"]
    num_before = len(tokenizer(context)["input_ids"])
    with torch.no_grad():
        log_probs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    scores = [log_probs[t - 1, ids[t]].item() for t in range(max(num_before, 1), len(ids))]
    return sum(scores) / len(scores)


def expected(model: Any, tokenizer: Any, path: Path) -> float:
    right = 0
    for question in read_questions(path):
        scores = [score_alone(model, tokenizer, *pair) for pair in question.pairs]
        right += scores.index(max(scores)) == question.gold
    return right / len(QUESTIONS)


@pytest.mark.parametrize("batch_tokens", [1, 40, 4096])
@pytest.mark.parametrize("which", ["tiny_tokenizer", "tiny_bos_tokenizer"])
def test_batched_scores_equal_those_alone(
    tiny_llama: Factory,
    path: Path,
    batch_tokens: int,
    which: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenizer = request.getfixturevalue(which)
    model = tiny_llama(initializer_range=0.5)
    found: dict[tuple[int, int], float] = {}
    compute = choices._scores

    def spy(model: Any, batch: Any) -> list[float]:
        scores = compute(model, batch)
        for item, score in zip(batch, scores, strict=True):
            found[item.question, item.choice] = score
        return scores

    monkeypatch.setattr(choices, "_scores", spy)
    got = choices_accuracy(model, tokenizer, path, batch_tokens=batch_tokens)
    for number, question in enumerate(read_questions(path)):
        for choice, pair in enumerate(question.pairs):
            alone = score_alone(model, tokenizer, *pair)
            assert found[number, choice] == pytest.approx(alone, rel=1e-5)
    assert len(found) == 11
    assert got.accuracy == expected(model, tokenizer, path)


def test_result(tiny_llama: Factory, tiny_tokenizer: Any, path: Path) -> None:
    got = choices_accuracy(tiny_llama(), tiny_tokenizer, path)
    assert (got.num_questions, got.name) == (4, "quiz")
    assert got.stderr == pytest.approx(math.sqrt(got.accuracy * (1 - got.accuracy) / 3))


def test_right_answers_count(tiny_llama: Factory, tiny_tokenizer: Any, path: Path) -> None:
    model = tiny_llama(initializer_range=0.5)
    golds = []
    for question in read_questions(path):
        scores = [score_alone(model, tiny_tokenizer, *pair) for pair in question.pairs]
        golds.append(scores.index(max(scores)))
    rows = [{**row, "gold": gold} for row, gold in zip(QUESTIONS, golds, strict=True)]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert choices_accuracy(model, tiny_tokenizer, path).accuracy == 1.0
    rows[0]["gold"] = (golds[0] + 1) % 3
    path.write_text("\n".join(map(json.dumps, rows)))
    assert choices_accuracy(model, tiny_tokenizer, path).accuracy == 0.75
    assert choices_accuracy(model, tiny_tokenizer, path, limit=1).accuracy == 0.0
    assert choices_accuracy(model, tiny_tokenizer, path, limit=3).num_questions == 3


def test_long_context_loses_its_beginning(
    tiny_llama: Factory, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    model = tiny_llama(max_position_embeddings=32)
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"ctx": "The path " * 50, "choices": ["a", "b"], "gold": 0}))
    assert choices_accuracy(model, tiny_tokenizer, path).num_questions == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", r"line 2 of .*quiz\.jsonl is not a question \(JSONDecodeError"),
        ('{"ctx": "a", "gold": 0}', r"line 2 .* \(KeyError: 'choices'\); it needs ctx, choices"),
        ("[1]", "line 2 of .* is not a question"),
        ('{"ctx": "a", "choices": ["b"], "gold": 1}', "line 2 .* has 1 choices, but gold is 1"),
    ],
)
def test_lines_that_are_no_questions(path: Path, line: str, message: str) -> None:
    path.write_text(json.dumps(QUESTIONS[0]) + "\n" + line + "\n")
    with pytest.raises(DataError, match=message):
        read_questions(path)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*no\.jsonl; name a"):
        read_questions(tmp_path / "no.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"there is no question in .*empty\.jsonl"):
        read_questions(tmp_path / "empty.jsonl")


def test_nan_and_wrong_numbers(tiny_llama: Factory, tiny_tokenizer: Any, path: Path) -> None:
    model = tiny_llama()
    with pytest.raises(RequestError, match="limit=0 and batch_tokens=1024 were asked for"):
        choices_accuracy(model, tiny_tokenizer, path, limit=0)
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    with pytest.raises(NumericsError, match="of question . of .* scores nan; check the weights"):
        choices_accuracy(model, tiny_tokenizer, path)
