"""The verb `evaluate`: the task's metric, and how fast the model runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from prunepath.errors import RequestError

if TYPE_CHECKING:
    from prunepath.data.samples import Samples
    from prunepath.evaluation.perplexity import Perplexity
    from prunepath.evaluation.speed import Speed
    from prunepath.evaluation.throughput import Throughput
    from prunepath.progress import Progress
    from prunepath.structure.cost import Cost
    from prunepath.tasks.task import Metric, Task

__all__ = ["Evaluation", "counted_cost", "evaluate", "evaluation_samples", "measured_speed"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What was measured.

    Args:
        source: the model.
        task: name of the task.
        data: description of the data.
        metric: the task's metric over all samples.
        speed: prefill and decode speed of causal language models, samples per second of all
            others; None when not asked for.
        cost: parameters, MACs, bytes; None for a family no table covers.
        stated_for: what MACs are counted over, in words: `"512 tokens"`, `"one sample"`.
    """

    source: str
    task: str
    data: str
    metric: Metric
    speed: Speed | Throughput | None
    cost: Cost | None
    stated_for: str

    @property
    def perplexity(self) -> Perplexity:
        """The metric of a causal language model in full.

        Raises:
            RequestError: the task is another.
        """
        if self.task != "causal-lm":
            raise RequestError(
                f"the perplexity was asked for, and the task is {self.task}; read `metric`, its "
                f"{self.metric.name}"
            )
        from prunepath.evaluation.perplexity import Perplexity

        others = self.metric.others
        return Perplexity(
            self.metric.value, others["nll"], int(others["tokens"]), int(others["window"])
        )


def evaluate(
    model: Any,
    *,
    data: Any = None,
    task: str | None = None,
    windows: int | None = None,
    window: int | None = None,
    text_field: str = "",
    label_field: str = "",
    split: str | None = None,
    speed: bool = True,
    tokenizer: Any = None,
    dtype: str = "auto",
    device: str | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    **hub: Any,
) -> Evaluation:
    """Measure a model, cut or dense.

    Args:
        model: Hub id, folder, GGUF file or model object.
        data: what the task reads, with labels; language models predict, by default, the part of
            the packaged text that calibration never sees.
        task: registered task name; by default what the model's class is for.
        windows: samples (windows of text, images, sentences); None: the task's own count.
        window: tokens per sample of text; perplexities at different windows are different
            numbers.
        text_field, label_field, split: where text and labels are in `data`.
        speed: measure how fast the model runs, too.
        tokenizer, dtype, device, trust_remote_code, hub: how to load the model.
        progress: who listens.

    Returns:
        Metric, speed and cost.

    Raises:
        PrunepathError: one sentence on what was asked, what was found and what to do.

    Example:
        >>> import prunepath
        >>> prunepath.evaluate("small", windows=4).metric.value  # doctest: +SKIP
    """
    from prunepath.api.stated import LENGTH
    from prunepath.checkpoint.source import open_model
    from prunepath.progress import note

    opened = open_model(
        model,
        task=task,
        tokenizer=tokenizer,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
        **hub,
    )
    samples = evaluation_samples(
        opened,
        data,
        windows=windows,
        window=window,
        text_field=text_field,
        label_field=label_field,
        split=split,
    )
    for remark in samples.notes:
        note(progress, remark)
    cost, stated = counted_cost(opened.model, opened.task, LENGTH if window is None else window)
    return Evaluation(
        source=opened.model_id,
        task=opened.task.name,
        data=samples.description,
        metric=opened.task.evaluate(opened.model, samples, progress=progress),
        speed=measured_speed(opened.model, opened.task, window) if speed else None,
        cost=cost,
        stated_for=stated,
    )


def evaluation_samples(
    opened: Any,
    data: Any,
    *,
    windows: int | None,
    window: int | None,
    text_field: str = "",
    label_field: str = "",
    split: str | None = None,
) -> Samples:
    """Read labelled samples for an opened model; without data, text calibration never sees."""
    from prunepath.api.plan import require_counts
    from prunepath.tasks.task import DataRequest

    require_counts(windows=(windows, 1), window=(window, 2))
    return cast(
        "Samples",
        opened.task.samples(
            opened,
            data,
            DataRequest(
                count=opened.task.counts.evaluation if windows is None else windows,
                window=window,
                field=text_field,
                label_field=label_field,
                split="evaluation" if data is None and split is None else split,
                labels=True,
            ),
        ),
    )


def measured_speed(model: Any, task: Task, window: int | None) -> Speed | Throughput:
    """Tokens per second of a causal language model, samples per second of any other."""
    from prunepath.api.stated import LENGTH
    from prunepath.evaluation.speed import measure_speed
    from prunepath.evaluation.throughput import measure_throughput

    if task.name == "causal-lm":
        return measure_speed(model, sequence_length=LENGTH if window is None else window)
    return measure_throughput(model, task, window=window)


def counted_cost(model: Any, task: Task, sequence_length: int) -> tuple[Cost | None, str]:
    """What a model costs, counted from its own tensors, cut or dense.

    Args:
        model: any model.
        task: what it is used for.
        sequence_length: tokens that MACs are stated for.

    Returns:
        The cost and what MACs are counted over; None and nothing for a family no table covers.
    """
    from prunepath.api.discovery import discover_for
    from prunepath.api.stated import stated_for
    from prunepath.errors import ModelError
    from prunepath.structure.cost import cost_of
    from prunepath.structure.selection import everything
    from prunepath.surgery.experts import fuse_experts_

    try:
        structure = discover_for(model, task, proven=False)
    except ModelError:  # no table covers it: it can be measured all the same
        return None, ""
    finally:
        fuse_experts_(model)  # measured as its user runs it
    cost = cost_of(structure, everything(structure), sequence_length)
    return cost, stated_for(structure, sequence_length)
