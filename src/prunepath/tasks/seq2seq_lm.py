"""Text to text: read one text and write another (translation, summaries, answers).

The decoder is shown the text to be written and names each of its tokens from those before. Where
the data has no such texts, what the dense model itself would write takes their place, for a
label-free objective only needs typical texts. Texts are read as they are: a model that wants an
instruction in front (`summarize: ...`) must find it in the data.

Shapes: B texts, T positions of the decoder, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prunepath.data.columns import Columns
from prunepath.data.samples import Samples
from prunepath.errors import DataError
from prunepath.tasks.task import Counts, DataRequest, Metric
from prunepath.tasks.written import Written

if TYPE_CHECKING:
    from torch import Tensor

    from prunepath.data.tables import Table
    from prunepath.progress import Progress

__all__ = ["SEQ2SEQ_LM", "Seq2SeqLM"]

_COLUMNS = Columns(
    texts=(
        ("source",),
        ("text",),
        ("document",),
        ("article",),
        ("dialogue",),
        ("input",),
        ("question",),
    ),
    labels=("target", "summary", "highlights", "translation", "output", "answer"),
    by_position={1: 1, 2: 1},
)
_WINDOW = 256
_OWN_TOKENS = 48
_DUMMY_TOKENS = 16


class Seq2SeqLM(Written):
    """Write a text that answers another."""

    name = "seq2seq-lm"
    summary = "read a text and write another; perplexity of the given texts"
    auto_classes = ("AutoModelForSeq2SeqLM",)
    architectures = ("ForConditionalGeneration", "MTModel")
    counts = Counts(windows=128, refit=32, holdout=16, moments=128, evaluation=None, batch=8)
    metric_name = "perplexity"
    higher_is_better = False

    def samples(self, opened: Any, data: Any, request: DataRequest) -> Samples:
        from torch.nn import functional

        from prunepath.tasks.decoding import NO_LABEL, decoder_inputs, own_answers
        from prunepath.tasks.sentences import encode, request_table, text_limit

        table = request_table(self, data, _COLUMNS, request)
        texts = [row.texts for row in table.rows]
        inputs, notes = encode(opened, texts, request.window, usual=_WINDOW)
        limit = text_limit(opened, request.window, usual=_WINDOW)
        if table.columns.label is None:
            labels = own_answers(
                opened.model, inputs, limit=min(_OWN_TOKENS, limit), batch=self.counts.batch
            )
            what = "texts, answered by the dense model"
        else:
            labels = _targets(opened.tokenizer, table, limit)
            what = "pairs of texts"
        if labels.shape == inputs["input_ids"].shape:
            # Padding is told by the shape of an activation: the two sides must differ in width.
            labels = functional.pad(labels, (0, 1), value=NO_LABEL)
        return Samples(
            inputs={**inputs, **decoder_inputs(opened.model, labels)},
            labels=labels if request.labels else None,
            description=f"{table.description}, {len(texts)} {what}",
            notes=notes,
        )

    def dummy(self, model: Any, count: int, *, window: int | None = None, seed: int = 0) -> Samples:
        from prunepath.tasks.decoding import random_decoder_inputs
        from prunepath.tasks.sentences import random_sentences

        inputs = random_sentences(model, count, window, seed)
        width = _DUMMY_TOKENS if window is None else window
        return Samples(
            inputs={**inputs, **random_decoder_inputs(model, count, width, seed)},
            description="random tokens",
        )

    def output(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = model(**inputs, use_cache=False).logits
        return logits

    def evaluate(self, model: Any, samples: Samples, *, progress: Progress | None = None) -> Metric:
        """Perplexity of the given texts, per token, and how many tokens are the likeliest.

        Raises:
            RequestError: the samples have no labels.
            NumericsError: an output is not finite.
        """
        from prunepath.tasks.decoding import NO_LABEL, needed_labels
        from prunepath.tasks.token_scores import score_tokens

        found = score_tokens(self, model, samples, needed_labels(samples), NO_LABEL, progress)
        return Metric(
            name=self.metric_name,
            value=math.exp(min(found.nll, 700.0)),
            higher_is_better=self.higher_is_better,
            samples=len(samples),
            others={
                "token_accuracy": found.accuracy,
                "nll": found.nll,
                "tokens": float(found.num_tokens),
            },
        )


SEQ2SEQ_LM = Seq2SeqLM()


def _targets(tokenizer: Any, table: Table, limit: int) -> Tensor:
    """The texts to be written as labels, (N, T)."""
    from prunepath.tasks.decoding import label_rectangle

    for row in table.rows:
        if not isinstance(row.label, str):
            raise DataError(
                f"the column '{table.columns.label}' of {row.where} holds a "
                f"{type(row.label).__name__}, not a text; name another column with label_field= "
                "(--label-field)"
            )
    written = tokenizer(
        text_target=[row.label for row in table.rows],
        truncation=True,
        max_length=limit,
        verbose=False,
    )
    rows: list[list[int]] = written["input_ids"]
    for row, tokens in zip(table.rows, rows, strict=True):
        if not tokens:
            raise DataError(f"{row.where} has no text in '{table.columns.label}'; mend that row")
    return label_rectangle(rows)
