"""Sentence embeddings: the mean of the token vectors of a text, at length 1.

Label-free, the distance compares what embeddings are used for: the similarities of all pairs of
sentences in a batch, S = E E', with the dense model's. A turn of the whole space changes none of
them and costs nothing.

Models that embed by their first token instead of the mean are not of this task.

Shapes: B sentences, T tokens, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prunepath.data.columns import Columns
from prunepath.data.samples import Samples
from prunepath.errors import DataError, ModelError, RequestError
from prunepath.tasks.task import Counts, DataRequest, Metric, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from prunepath.data.tables import Row
    from prunepath.progress import Progress

__all__ = ["SENTENCE_EMBEDDING", "SentenceEmbedding"]

_COLUMNS = Columns(
    texts=(
        ("sentence1", "sentence2"),
        ("text1", "text2"),
        ("premise", "hypothesis"),
        ("question1", "question2"),
        ("anchor", "positive"),
        ("sentence",),
        ("text",),
    ),
    labels=("score", "similarity_score", "similarity", "label"),
    by_position={1: 1, 2: 2, 3: 2},
)


class SentenceEmbedding(Task):
    """Embed sentences so that cosines say how alike they are."""

    name = "sentence-embedding"
    summary = "one vector per sentence (mean pooling); Spearman of cosines against scores"
    auto_classes = ("AutoModel",)
    architectures = ("Model",)
    loss_rows = "sample"
    counts = Counts(windows=1024, refit=256, holdout=128, moments=4096, evaluation=None, batch=32)
    metric_name = "spearman"

    def samples(self, opened: Any, data: Any, request: DataRequest) -> Samples:
        """Read sentences; with labels, pairs of them as rows 2i and 2i + 1, the score at both.

        Without labels the two sentences of a pair are rows of their own, too. `request.count` and
        `extra` count sentences.

        Raises:
            DataError: what was asked, what was found, what to do.
        """
        import torch

        from prunepath.tasks.sentences import encode, request_table

        table = request_table(self, data, _COLUMNS, _rows_for(request))
        texts = [(text,) for row in table.rows for text in row.texts]
        labels = None
        if request.labels:
            scores = [_score(row) for row in table.rows]
            labels = torch.tensor(scores, dtype=torch.float32).repeat_interleave(2)
        elif request.count is not None:
            if len(texts) < request.count:
                raise DataError(
                    f"{request.count} sentences were asked for, but {table.description} has only "
                    f"{len(texts)}; give more data, or ask for fewer"
                )
            texts = texts[: request.count + request.extra]
        inputs, notes = encode(opened, texts, request.window)
        return Samples(
            inputs=inputs,
            labels=labels,
            description=f"{table.description}, {len(texts)} sentences",
            notes=notes,
        )

    def dummy(self, model: Any, count: int, *, window: int | None = None, seed: int = 0) -> Samples:
        from prunepath.tasks.sentences import random_sentences

        inputs = random_sentences(model, count, window, seed)
        return Samples(inputs=inputs, description="random tokens")

    def output(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        """The embeddings, (B, D), each of length 1."""
        from torch.nn import functional

        from prunepath.tasks.sentences import uncached

        hidden = getattr(model(**inputs, **uncached(model)), "last_hidden_state", None)
        if hidden is None:
            raise ModelError(
                f"a {type(model).__name__} gives no token vectors (last_hidden_state), whose mean "
                "is the embedding; pass the encoder without a head"
            )
        mask = inputs["attention_mask"].unsqueeze(-1)
        # The mean and the sum of the vectors point the same way.
        return functional.normalize((hidden.float() * mask).sum(1), dim=-1)

    def draw(
        self, output: Tensor, samples: Samples, objective: str, generator: torch.Generator
    ) -> Tensor:
        from prunepath.tasks.draws import similarity_probe

        if objective != "kl":
            raise _no_loss()
        return similarity_probe(output, generator)

    def distance(self, output: Tensor, dense: Tensor, samples: Samples) -> Tensor:
        """Half the mean squared error of the similarities of different sentences."""
        own, other = output.float(), dense.float()
        off = (own @ own.T - other @ other.T).square().triu(1)
        return off.sum() / max(len(own) * (len(own) - 1), 1)

    def loss(self, output: Tensor, samples: Samples) -> Tensor:
        raise _no_loss()

    def evaluate(self, model: Any, samples: Samples, *, progress: Progress | None = None) -> Metric:
        """Spearman (with Pearson) of the cosines of pairs against their scores, times 100.

        Raises:
            RequestError: the samples were read without scores.
            DataError: all scores are equal.
            NumericsError: an embedding is not finite.
        """
        import torch

        from prunepath.tasks import scores
        from prunepath.tasks.sentences import batch_outputs

        if samples.labels is None or len(samples) % 2:
            raise RequestError(
                "scores of pairs of sentences are needed, but these samples are single sentences; "
                "read them with labels"
            )
        parts = list(batch_outputs(self, model, samples, progress))
        rows = torch.cat([rows for rows, _ in parts])
        embeddings = torch.cat([output for _, output in parts])[rows.argsort()]
        cosines = (embeddings[0::2] * embeddings[1::2]).sum(-1)
        labels = samples.labels[0::2]
        return Metric(
            name=self.metric_name,
            value=scores.spearman(cosines, labels),
            higher_is_better=self.higher_is_better,
            samples=len(labels),
            others={"pearson": scores.pearson(cosines, labels)},
        )


SENTENCE_EMBEDDING = SentenceEmbedding()


def _no_loss() -> RequestError:
    return RequestError(
        "the task sentence-embedding has no objective 'task', for scores have no common scale; use "
        "'kl' (match the dense model's similarities, no labels)"
    )


def _rows_for(request: DataRequest) -> DataRequest:
    """The rows that hold so many sentences: a pair holds two, but need not be one."""
    if request.count is None:
        return request
    if request.labels:
        return replace(request, count=-(-request.count // 2), extra=-(-request.extra // 2))
    return replace(request, count=1, extra=request.count + request.extra - 1)


def _score(row: Row) -> float:
    from prunepath.tasks.labels import number_label

    if len(row.texts) != 2:
        raise DataError(
            f"{row.where} has one sentence, and scores are of two; name both columns, separated by "
            "a comma, with text_field= (--text-field)"
        )
    return number_label(row)
