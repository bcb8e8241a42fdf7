"""Text classification and regression: one answer per text or pair of texts.

A head of several outputs gives classes: label-free, the distance is the divergence of their
distribution from the dense model's. A head of one output gives a number: the distance is half the
squared difference.

Shapes: B texts, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prunepath.data.columns import Columns
from prunepath.data.samples import Samples
from prunepath.errors import ModelError, RequestError
from prunepath.tasks.task import Counts, DataRequest, Metric, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from prunepath.data.tables import Table
    from prunepath.progress import Progress

__all__ = ["TEXT_CLASSIFICATION", "TextClassification"]

_COLUMNS = Columns(
    texts=(
        ("sentence1", "sentence2"),
        ("premise", "hypothesis"),
        ("question1", "question2"),
        ("question", "sentence"),
        ("text_a", "text_b"),
        ("sentence",),
        ("text",),
        ("review",),
        ("content",),
    ),
    labels=("label", "labels", "score", "class", "target"),
    by_position={1: 1, 2: 1, 3: 2},
)


class TextClassification(Task):
    """Name the class of a text, or its score where the model has one output."""

    name = "text-classification"
    summary = "the class or score of a text or a pair of texts; accuracy or correlation"
    auto_classes = ("AutoModelForSequenceClassification",)
    architectures = ("ForSequenceClassification",)
    loss_rows = "sample"
    distribution = True
    counts = Counts(windows=2048, refit=256, holdout=128, moments=4096, evaluation=None, batch=32)
    metric_name = "accuracy"

    def samples(self, opened: Any, data: Any, request: DataRequest) -> Samples:
        from prunepath.tasks.sentences import encode, request_table

        _require_one_answer(opened)
        table = request_table(self, data, _COLUMNS, request)
        inputs, notes = encode(opened, [row.texts for row in table.rows], request.window)
        labels = None
        if request.labels:
            labels, more = _labels(opened.model.config, table)
            notes += more
        return Samples(
            inputs=inputs,
            labels=labels,
            description=f"{table.description}, {len(table.rows)} texts",
            notes=notes,
        )

    def dummy(self, model: Any, count: int, *, window: int | None = None, seed: int = 0) -> Samples:
        from prunepath.tasks.sentences import random_sentences

        inputs = random_sentences(model, count, window, seed)
        return Samples(inputs=inputs, description="random tokens")

    def output(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        from prunepath.tasks.sentences import uncached

        logits: Tensor = model(**inputs, **uncached(model)).logits
        return logits

    def draw(
        self, output: Tensor, samples: Samples, objective: str, generator: torch.Generator
    ) -> Tensor:
        from prunepath.statistics.objective import require_objective, take_labels_
        from prunepath.tasks.draws import fisher_probe, require_finite, sign_probe

        require_objective(objective)
        one_number = output.shape[-1] == 1
        if objective == "kl":
            return (sign_probe if one_number else fisher_probe)(output, generator)
        labels = _needed(samples).to(output.device)
        if not one_number:
            return take_labels_(output, labels)
        require_finite(output)
        return (output.detach() - labels.unsqueeze(-1)).to(output.dtype)

    def distance(self, output: Tensor, dense: Tensor, samples: Samples) -> Tensor:
        from prunepath.statistics.objective import kl_to_dense

        if output.shape[-1] == 1:
            return (output.float() - dense.float()).square().mean() / 2
        return kl_to_dense(output, dense)

    def loss(self, output: Tensor, samples: Samples) -> Tensor:
        from torch.nn import functional

        labels = _needed(samples).to(output.device)
        if output.shape[-1] == 1:
            return (output.float().squeeze(-1) - labels).square().mean() / 2
        return functional.cross_entropy(output.float(), labels)

    def evaluate(self, model: Any, samples: Samples, *, progress: Progress | None = None) -> Metric:
        """Accuracy in percent with macro F1; for one output Spearman with Pearson, times 100.

        Raises:
            RequestError: the samples have no labels.
            NumericsError: an output is not finite.
        """
        import torch

        from prunepath.tasks import scores
        from prunepath.tasks.sentences import batch_outputs

        labels = _needed(samples)
        parts = list(batch_outputs(self, model, samples, progress))
        outputs = torch.cat([output.float() for _, output in parts])
        labels = labels[torch.cat([rows for rows, _ in parts])]
        if outputs.shape[-1] == 1:
            numbers = outputs.squeeze(-1)
            others = {"pearson": scores.pearson(numbers, labels)}
            name, value = "spearman", scores.spearman(numbers, labels)
        else:
            predicted = outputs.argmax(-1)
            others = {"macro_f1": scores.macro_f1(predicted, labels)}
            name, value = self.metric_name, scores.accuracy(predicted, labels)
        return Metric(
            name=name,
            value=value,
            higher_is_better=self.higher_is_better,
            samples=len(samples),
            others=others,
        )


TEXT_CLASSIFICATION = TextClassification()


def _require_one_answer(opened: Any) -> None:
    config = opened.model.config
    kind = getattr(config, "problem_type", None)
    if kind == "multi_label_classification" or (kind == "regression" and config.num_labels > 1):
        raise ModelError(
            f"'{opened.model_id}' gives {config.num_labels} answers to every text (problem_type "
            f"'{kind}'), and the task text-classification takes one class or one number; pass a "
            "model of one of these"
        )


def _needed(samples: Samples) -> Tensor:
    if samples.labels is None:
        raise RequestError(
            "labels are needed, but these samples were read without any; read them with labels, or "
            "use the objective 'kl', which needs none"
        )
    return samples.labels


def _labels(config: Any, table: Table) -> tuple[Tensor, tuple[str, ...]]:
    """Class indices (N,), int64, or numbers (N,), float32; and remarks."""
    import torch

    from prunepath.tasks.labels import class_label, number_label

    if config.num_labels == 1:
        return torch.tensor([number_label(row) for row in table.rows], dtype=torch.float32), ()
    names = [str(config.id2label.get(index, index)) for index in range(config.num_labels)]
    found = [class_label(row, names, config.label2id) for row in table.rows]
    count = Counter(found)
    empty = [name for index, name in enumerate(names) if not count[index]]
    notes = (f"no row is of the class {', '.join(empty)}",) if empty else ()
    return torch.tensor(found, dtype=torch.int64), notes
