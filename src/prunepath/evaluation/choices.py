"""Zero-shot multiple choice: does the model find the right ending likelier than the wrong ones?

A file holds one question per line, in one of two shapes:

    {"ctx": "Question: ...\\nAnswer:", "choices": ["a wand", "a rock"], "gold": 1}
    {"ctxs": ["... so Sarah", "... so Maria"], "cont": " always got ...", "gold": 0}

In the first shape `" " + choice` is scored after the context; in the second the one continuation
is scored after each context. The score is the log-likelihood of the continuation divided by its
number of tokens, so that a long answer is not punished for its length. (lm-evaluation-harness
divides by bytes in `acc_norm`; the accuracies of the two are close, not equal.)

Shapes: B sequences in a batch, T tokens in the longest of them, V vocabulary.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunepath.errors import DataError, NumericsError, RequestError
from prunepath.evaluation.mode import device_of, evaluating
from prunepath.evaluation.perplexity import token_losses
from prunepath.progress import Progress, track

__all__ = ["ChoicesAccuracy", "Question", "choices_accuracy", "read_questions"]


@dataclass(frozen=True)
class ChoicesAccuracy:
    """A measured accuracy.

    Args:
        accuracy: fraction of questions whose right choice scores highest, 0 to 1.
        stderr: standard error of that fraction.
        num_questions: how many questions were asked.
        name: the file they came from, without folder and suffix.
    """

    accuracy: float
    stderr: float
    num_questions: int
    name: str


@dataclass(frozen=True)
class Question:
    """One question: pairs of context and continuation, and the index of the right pair."""

    pairs: tuple[tuple[str, str], ...]
    gold: int


@dataclass(frozen=True)
class _Sequence:
    """A context and a continuation as tokens; the last `num_scored` ids are the continuation."""

    ids: list[int]
    num_scored: int
    question: int
    choice: int


def choices_accuracy(
    model: nn.Module,
    tokenizer: Any,
    path: str | os.PathLike[str],
    *,
    limit: int | None = None,
    batch_tokens: int = 1024,
    progress: Progress | None = None,
) -> ChoicesAccuracy:
    """Answer the questions of a file by length-normalised log-likelihood.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer.
        path: a `.jsonl` file of questions, in one of the two shapes above.
        limit: ask only the first so many questions.
        batch_tokens: tokens per forward pass, padding included; logits take 4 V bytes for each.
        progress: told about every batch.

    Returns:
        Accuracy with its standard error.

    Raises:
        DataError: the file is missing, empty, or a line is not a question; the line is named.
        NumericsError: a score is NaN or infinite.
        RequestError: `limit` or `batch_tokens` is below 1.
    """
    if batch_tokens < 1 or (limit is not None and limit < 1):
        raise RequestError(
            f"limit={limit} and batch_tokens={batch_tokens} were asked for; use at least 1 each"
        )
    path = Path(path)
    questions = read_questions(path, limit)
    sequences = list(_encode(questions, tokenizer, _longest_input(model)))
    # Long ones first: neighbours have similar lengths, and memory is at its peak at the start.
    sequences.sort(key=lambda item: -len(item.ids))
    batches = list(_batches(sequences, batch_tokens))
    scores = [[-math.inf] * len(question.pairs) for question in questions]
    with evaluating(model):
        for batch in track(progress, batches, path.stem):
            for item, score in zip(batch, _scores(model, batch), strict=True):
                if not math.isfinite(score):
                    raise NumericsError(
                        f"choice {item.choice} of question {item.question} of {path} scores "
                        f"{score}; check the weights for NaN or infinity"
                    )
                scores[item.question][item.choice] = score
    num_right = sum(
        max(range(len(row)), key=row.__getitem__) == question.gold
        for row, question in zip(scores, questions, strict=True)
    )
    num_questions = len(questions)
    accuracy = num_right / num_questions
    stderr = math.sqrt(accuracy * (1 - accuracy) / max(num_questions - 1, 1))
    return ChoicesAccuracy(accuracy, stderr, num_questions, path.stem)


def read_questions(path: Path, limit: int | None = None) -> list[Question]:
    """Read a file of questions.

    Args:
        path: a `.jsonl` file.
        limit: read only the first so many.

    Returns:
        At least one question.

    Raises:
        DataError: the file is missing or empty, or a line is not a question; the line is named.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}; name a .jsonl file of questions")
    questions: list[Question] = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if limit is not None and len(questions) == limit:
                break
            if line.strip():
                questions.append(_question(line, f"line {number} of {path}"))
    if not questions:
        raise DataError(f"there is no question in {path}; name a .jsonl file that holds some")
    return questions


def _question(line: str, where: str) -> Question:
    try:
        row = json.loads(line)
        if "ctxs" in row:
            pairs = tuple((context, row["cont"]) for context in row["ctxs"])
        else:
            pairs = tuple((row["ctx"], " " + choice) for choice in row["choices"])
        gold = int(row["gold"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{where} is not a question ({type(error).__name__}: {error}); it needs ctx, choices "
            "and gold, or ctxs, cont and gold"
        ) from error
    if not 0 <= gold < len(pairs):
        raise DataError(f"{where} has {len(pairs)} choices, but gold is {gold}; mend that line")
    return Question(pairs, gold)


def _encode(
    questions: Sequence[Question], tokenizer: Any, longest: int | None
) -> Iterator[_Sequence]:
    prefix = _start_ids(tokenizer)
    for number, question in enumerate(questions):
        for choice, (context, continuation) in enumerate(question.pairs):
            # Tokenised together, as the model met such text; the continuation is what comes after
            # as many tokens as the context has alone.
            before = tokenizer(context, add_special_tokens=False)["input_ids"]
            whole = tokenizer(context + continuation, add_special_tokens=False)["input_ids"]
            num_scored = len(whole) - len(before)
            if num_scored < 1:
                raise DataError(
                    f"choice {choice} of question {number} has no tokens of its own after its "
                    "context; remove the question"
                )
            # With nothing before it the first token has no prediction, so it cannot be scored.
            ids = prefix + whole
            num_scored = min(num_scored, len(ids) - 1)
            # Too long a context loses its beginning.
            yield _Sequence(ids if longest is None else ids[-longest:], num_scored, number, choice)


def _start_ids(tokenizer: Any) -> list[int]:
    """The token that starts every text, if the tokenizer has one (Llama has, SmolLM has not)."""
    start = tokenizer.bos_token_id
    begins = start is not None and tokenizer("a")["input_ids"][0] == start
    return [start] if begins else []


def _longest_input(model: nn.Module) -> int | None:
    config = getattr(model, "config", None)
    longest = getattr(config, "max_position_embeddings", None)
    return longest if isinstance(longest, int) and longest > 0 else None


def _batches(sequences: Sequence[_Sequence], batch_tokens: int) -> Iterator[list[_Sequence]]:
    """Cut a list sorted by falling length into batches; padded size B x T stays in the limit."""
    batch: list[_Sequence] = []
    for item in sequences:
        if batch and len(batch[0].ids) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _scores(model: nn.Module, batch: Sequence[_Sequence]) -> list[float]:
    """Mean log-likelihood per token of every continuation."""
    length = max(len(item.ids) for item in batch)
    # Padding is on the right, where a causal model cannot look from the tokens that count.
    ids = torch.zeros(len(batch), length, dtype=torch.int64)
    mask = torch.zeros(len(batch), length, dtype=torch.int64)
    for row, item in enumerate(batch):
        ids[row, : len(item.ids)] = torch.tensor(item.ids)
        mask[row, : len(item.ids)] = 1
    device = device_of(model)
    ids = ids.to(device)
    logits: Tensor = model(input_ids=ids, attention_mask=mask.to(device), use_cache=False).logits
    losses = token_losses(logits[:, :-1], ids[:, 1:]).cpu()
    # The loss at position t belongs to token t + 1.
    return [
        -float(losses[row, len(item.ids) - 1 - item.num_scored : len(item.ids) - 1].mean())
        for row, item in enumerate(batch)
    ]
