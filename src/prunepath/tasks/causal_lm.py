"""Causal language modelling: predict the next token of a window of text.

Label-free, the distance is the divergence of the next-token distributions from the dense model's;
the text itself holds the labels of the objective `task` and of perplexity.

Shapes: B windows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prunepath.data.samples import Samples
from prunepath.tasks.language import random_ids, text_windows
from prunepath.tasks.task import Counts, DataRequest, Metric, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from prunepath.progress import Progress

__all__ = ["CAUSAL_LM", "CausalLM"]


class CausalLM(Task):
    """Predict every next token."""

    name = "causal-lm"
    summary = "predict the next token of a text; perplexity"
    auto_classes = ("AutoModelForCausalLM",)
    architectures = ("ForCausalLM", "LMHeadModel")
    loss_rows = "token"
    distribution = True
    skip_first = True
    counts = Counts(windows=32, refit=8, holdout=2, moments=64, evaluation=24, batch=1)
    metric_name = "perplexity"
    higher_is_better = False

    def samples(self, opened: Any, data: Any, request: DataRequest) -> Samples:
        return text_windows(opened, data, request)

    def dummy(self, model: Any, count: int, *, window: int | None = None, seed: int = 0) -> Samples:
        return Samples(
            inputs={"input_ids": random_ids(model, count, window, seed)},
            description="random tokens",
        )

    def output(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        logits: Tensor = model(**inputs, use_cache=False).logits
        return logits

    def body(self, model: Any, inputs: Mapping[str, Tensor]) -> None:
        # Nobody reads logits: the head is a fifth of a small model's work.
        inner: Any = getattr(model, str(getattr(model, "base_model_prefix", "")), model)
        inner(**inputs, use_cache=False)

    def draw(
        self, output: Tensor, samples: Samples, objective: str, generator: torch.Generator
    ) -> Tensor:
        from prunepath.statistics.objective import draw_labels_, require_objective, take_labels_

        require_objective(objective)
        if objective == "kl":
            return draw_labels_(output, generator, _counting(samples))
        return take_labels_(output, *_next_tokens(samples))

    def counted(self, output: Tensor, samples: Samples) -> Tensor | None:
        return _counting(samples)

    def distance(self, output: Tensor, dense: Tensor, samples: Samples) -> Tensor:
        from prunepath.statistics.objective import kl_to_dense

        return kl_to_dense(output, dense, _counting(samples))

    def loss(self, output: Tensor, samples: Samples) -> Tensor:
        from torch.nn import functional

        labels, keep = (value[:, :-1].to(output.device) for value in _next_tokens(samples))
        logits = output[:, :-1]
        if "attention_mask" in samples.inputs:
            logits, labels = logits[keep], labels[keep]
        return functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]).float(), labels.flatten()
        )

    def evaluate(self, model: Any, samples: Samples, *, progress: Progress | None = None) -> Metric:
        from prunepath.evaluation.perplexity import perplexity

        found = perplexity(model, samples, progress=progress)
        return Metric(
            name=self.metric_name,
            value=found.value,
            higher_is_better=self.higher_is_better,
            samples=len(samples),
            others={"nll": found.nll, "tokens": found.num_tokens, "window": found.window},
        )


CAUSAL_LM = CausalLM()


def _counting(samples: Samples) -> Tensor | None:
    """Positions that are no padding, bool (B, T); None where all count."""
    mask = samples.inputs.get("attention_mask")
    return None if mask is None else mask.bool()


def _next_tokens(samples: Samples) -> tuple[Tensor, Tensor]:
    """What every position predicts, and whether that lies in the text; both (B, T)."""
    import torch

    ids = samples.inputs["input_ids"]
    labels = ids.roll(-1, dims=1)
    counts = torch.ones_like(ids, dtype=torch.bool)
    mask = _counting(samples)
    if mask is not None:
        counts = mask & mask.roll(-1, dims=1)
    counts[:, -1] = False  # the last token predicts something outside the window
    return labels, counts
