"""Masked language modelling: name the tokens of a text that are hidden from the model.

The mask token stands in for 15 % of the tokens of every window, chosen once per window when it is
read, so the dense and the cut model answer the same questions. `labels` holds what is hidden, and
-100 elsewhere; rows of the loss are the hidden tokens.

Shapes: N windows, B windows of a batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from prunepath.data.samples import Samples
from prunepath.errors import DataError, RequestError
from prunepath.tasks.task import Counts, DataRequest, Metric, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from prunepath.progress import Progress

__all__ = ["MASKED_LM", "MaskedLM"]

NOT_HIDDEN = -100
"""Label of a token that is in sight."""

_HIDDEN_SHARE = 0.15
_WINDOW = 128


class MaskedLM(Task):
    """Name the hidden tokens of a text."""

    name = "masked-lm"
    summary = "name the hidden tokens of a text; accuracy on 15 % of the tokens"
    auto_classes = ("AutoModelForMaskedLM",)
    architectures = ("ForMaskedLM",)
    loss_rows = "token"
    distribution = True
    counts = Counts(windows=128, refit=32, holdout=16, moments=128, evaluation=None, batch=8)
    metric_name = "accuracy"

    def samples(self, opened: Any, data: Any, request: DataRequest) -> Samples:
        """Cut text into windows and hide tokens; None is the text in the package.

        Labels come from the text itself, asked for or not.

        Raises:
            DataError: no tokenizer, one without a mask token, no text, or too little of it.
        """
        import torch

        from prunepath.data.windows import token_windows
        from prunepath.tasks.language import require_tokenizer
        from prunepath.tasks.sentences import text_limit

        tokenizer = require_tokenizer(opened)
        if tokenizer.mask_token_id is None:
            raise DataError(
                f"the tokenizer of '{opened.model_id}' has no mask token to hide tokens with; pass "
                "one that has"
            )
        before, after = _frame(tokenizer)
        limit = text_limit(opened, request.window, usual=_WINDOW)
        windows = token_windows(
            data,
            partial(tokenizer, add_special_tokens=False),
            window=limit - len(before) - len(after),
            count=request.count,
            extra=request.extra,
            field=request.field or "text",
            split=request.split,
        )
        ids = windows.ids
        frame = [torch.tensor(part).expand(len(ids), -1) for part in (before, after)]
        hidden = _hidden(ids, tokenizer.all_special_ids, request.seed)
        labels = ids.masked_fill(~hidden, NOT_HIDDEN)
        asked = ids.masked_fill(hidden, tokenizer.mask_token_id)
        inputs = torch.cat([frame[0], asked, frame[1]], dim=1).to(torch.int64)
        nothing = [torch.full_like(part, NOT_HIDDEN) for part in frame]
        return Samples(
            inputs={"input_ids": inputs, "attention_mask": torch.ones_like(inputs)},
            labels=torch.cat([nothing[0], labels, nothing[1]], dim=1).to(torch.int64),
            description=f"{windows.description}, 15 % of them hidden",
            notes=windows.notes,
        )

    def dummy(self, model: Any, count: int, *, window: int | None = None, seed: int = 0) -> Samples:
        from prunepath.tasks.sentences import random_sentences

        inputs = random_sentences(model, count, window, seed)
        ids = inputs["input_ids"]
        labels = ids.masked_fill(~_hidden(ids, (), seed), NOT_HIDDEN)
        return Samples(inputs=inputs, labels=labels, description="random tokens")

    def output(self, model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
        from prunepath.tasks.sentences import uncached

        logits: Tensor = model(**inputs, **uncached(model)).logits
        return logits

    def body(self, model: Any, inputs: Mapping[str, Tensor]) -> None:
        from prunepath.tasks.sentences import uncached

        # Nobody reads logits, and the vocabulary is the widest layer of all.
        inner: Any = getattr(model, str(getattr(model, "base_model_prefix", "")), model)
        inner(**inputs, **uncached(inner))

    def draw(
        self, output: Tensor, samples: Samples, objective: str, generator: torch.Generator
    ) -> Tensor:
        from prunepath.statistics.objective import draw_labels_, require_objective, take_labels_

        require_objective(objective)
        if objective == "kl":
            return draw_labels_(output, generator, _counting(samples))
        labels = _needed(samples)
        return take_labels_(output, labels.clamp(min=0), labels != NOT_HIDDEN)

    def counted(self, output: Tensor, samples: Samples) -> Tensor | None:
        return _counting(samples)

    def distance(self, output: Tensor, dense: Tensor, samples: Samples) -> Tensor:
        from prunepath.statistics.objective import kl_to_dense

        return kl_to_dense(output, dense, _counting(samples))

    def loss(self, output: Tensor, samples: Samples) -> Tensor:
        from torch.nn import functional

        labels = _needed(samples).to(output.device)
        return functional.cross_entropy(
            output.flatten(0, 1).float(), labels.flatten(), ignore_index=NOT_HIDDEN
        )

    def evaluate(self, model: Any, samples: Samples, *, progress: Progress | None = None) -> Metric:
        """Hidden tokens that are named rightly, in percent.

        `pseudo_perplexity` is exp of their mean negative log-likelihood with 15 % hidden at once;
        hiding one token at a time, as others measure it, gives lower figures.

        Raises:
            RequestError: the samples have no labels.
            NumericsError: an output is not finite.
        """
        from prunepath.tasks.token_scores import score_tokens

        found = score_tokens(self, model, samples, _needed(samples), NOT_HIDDEN, progress)
        return Metric(
            name=self.metric_name,
            value=found.accuracy,
            higher_is_better=self.higher_is_better,
            samples=len(samples),
            others={
                "pseudo_perplexity": math.exp(min(found.nll, 700.0)),
                "nll": found.nll,
                "tokens": float(found.num_tokens),
            },
        )


MASKED_LM = MaskedLM()


def _needed(samples: Samples) -> Tensor:
    if samples.labels is None:
        raise RequestError(
            "the hidden tokens are needed, but these samples were kept without labels; read them "
            "again, or use the objective 'kl'"
        )
    return samples.labels


def _counting(samples: Samples) -> Tensor:
    """Rows of the label-free loss, bool (B, T): hidden tokens, or every token where samples were
    kept without labels and nobody knows any more which ones are hidden."""
    if samples.labels is not None:
        return samples.labels != NOT_HIDDEN
    return samples.inputs["attention_mask"].bool()


def _frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens a tokenizer puts before and behind a text, `[CLS]` and `[SEP]`."""
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    framed = tokenizer("a", verbose=False)["input_ids"]
    text = [index for index, token in enumerate(framed) if token not in special]
    assert text, "a letter gives at least one token"
    return list(framed[: text[0]]), list(framed[text[-1] + 1 :])


def _hidden(ids: Tensor, never: Any, seed: int) -> Tensor:
    """15 % of the tokens of every row, at least one, bool (N, T); never special ones."""
    import torch

    allowed = torch.isin(ids, torch.tensor(sorted(never), dtype=ids.dtype), invert=True)
    hidden = torch.zeros_like(ids, dtype=torch.bool)
    for index, row in enumerate(allowed):
        # A generator for every row: what is hidden in it depends on no other row.
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        places = row.nonzero().flatten()
        count = min(max(1, round(_HIDDEN_SHARE * len(places))), len(places))
        hidden[index, places[torch.randperm(len(places), generator=generator)[:count]]] = True
    return hidden
