"""What tasks on sentences share: rows of text become one rectangle of tokens with its padding mask.

Shapes: N rows, B rows of a batch, T tokens of the longest row.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prunepath.data.samples import Samples
from prunepath.errors import DataError, RequestError
from prunepath.progress import Progress, track
from prunepath.tasks.language import WINDOW, random_ids, require_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from prunepath.data.columns import Columns
    from prunepath.data.tables import Table
    from prunepath.tasks.task import DataRequest, Task

__all__ = [
    "batch_outputs",
    "context_of",
    "encode",
    "random_sentences",
    "request_table",
    "text_limit",
    "uncached",
]

# Inputs with one value per token of the text, which lose the same padding.
_TOKENWISE = ("input_ids", "attention_mask", "token_type_ids")


def request_table(task: Task, data: Any, columns: Columns, request: DataRequest) -> Table:
    """Read the rows a request asks for.

    Args:
        task: whose data it is, for messages.
        data: what `read_table` takes.
        columns: the task's usual names.
        request: what is wanted; it counts rows.

    Raises:
        DataError: no data was given, or it cannot be read.
    """
    from prunepath.data.tables import read_table

    if data is None:
        raise DataError(
            f"the task '{task.name}' has no data of its own; give a .tsv, .csv or .jsonl file, a "
            "dataset id or rows with --data (data=...)"
        )
    return read_table(
        data,
        columns,
        count=request.count,
        extra=request.extra,
        field=request.field,
        label_field=request.label_field,
        split=request.split,
        labels=request.labels,
        seed=request.seed,
    )


def context_of(model: Any) -> int | None:
    """Tokens a model can take, or None where its config names no limit."""
    from torch import nn

    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(longest, int) or longest < 1:
        return None
    for name, module in model.named_modules():
        # RoBERTa and its kin number positions from just behind the padding token's.
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            return min(longest, module.num_embeddings) - first
    return longest


def text_limit(opened: Any, window: int | None, *, usual: int) -> int:
    """Tokens a row may have.

    Args:
        opened: an opened model (`checkpoint.source.OpenedModel`) with a tokenizer.
        window: what the user asked for, or None.
        usual: the most that is taken unless asked for.

    Raises:
        RequestError: more was asked for than the model's context.
    """
    context = context_of(opened.model)
    if window is None:
        limits = [usual, opened.tokenizer.model_max_length, context]
        return min(int(each) for each in limits if each is not None)
    if context is not None and window > context:
        raise RequestError(
            f"window={window} was asked for, but the model takes {context} tokens; ask for at most "
            "that"
        )
    return window


def encode(
    opened: Any, texts: Sequence[tuple[str, ...]], window: int | None, *, usual: int = WINDOW
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Tokenise rows of one or two texts, cut at a limit and padded to the longest of them.

    Args:
        opened: an opened model (`checkpoint.source.OpenedModel`).
        texts: rows, all of one text or all of two.
        window: the limit in tokens; None: what model and tokenizer can take, at most `usual`.
        usual: see there.

    Returns:
        The inputs the model knows, (N, T) each, `attention_mask` among them; and remarks.

    Raises:
        DataError: there is no tokenizer, or it cannot pad.
        RequestError: the window is longer than the model's context.
    """
    import torch

    tokenizer = require_tokenizer(opened)
    limit = text_limit(opened, window, usual=usual)
    columns = [list(column) for column in zip(*texts, strict=True)]
    if len(columns) > 2:
        raise DataError(
            f"rows of {len(columns)} texts were given, and a model reads one or two at once; name "
            "the columns with text_field= (--text-field)"
        )
    encoded = tokenizer(
        *columns, truncation=True, max_length=limit, return_attention_mask=True, verbose=False
    )
    lengths = [len(ids) for ids in encoded["input_ids"]]
    if min(lengths) < max(lengths):
        if tokenizer.pad_token is None:
            raise DataError(
                f"the tokenizer of '{opened.model_id}' has no padding token, which sentences of "
                "different lengths need; set tokenizer.pad_token and model.config.pad_token_id, "
                "and pass both"
            )
        encoded = tokenizer.pad(encoded, padding=True, verbose=False)
    known = inspect.signature(opened.model.forward).parameters
    inputs = {
        name: torch.tensor(value, dtype=torch.int64)
        for name, value in encoded.items()
        if name in known or name == "attention_mask"
    }
    full = sum(length == limit for length in lengths)
    note = f"{full} of {len(lengths)} texts fill all {limit} tokens and may have been cut there"
    return inputs, (note,) if full else ()


def random_sentences(model: Any, count: int, window: int | None, seed: int) -> dict[str, Tensor]:
    """Rows of random tokens without padding.

    Args:
        model: a model of transformers.
        count: rows B.
        window: tokens per row T; None: a short row.
        seed: of the draw.

    Returns:
        `input_ids` and `attention_mask`, (B, T).
    """
    import torch

    context = context_of(model)
    if window is None and context is not None:
        window = min(64, context)
    ids = random_ids(model, count, window, seed)
    end = getattr(model.config, "eos_token_id", None)
    if getattr(model.config, "is_encoder_decoder", False) and isinstance(end, int):
        # BART's classifier reads where the text ends and wants that once in every row.
        ids[ids == end] = 0 if end else 1
        ids[:, -1] = end
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def uncached(model: Any) -> dict[str, bool]:
    """Keywords that keep a model from filling a cache nobody reads."""
    known = "use_cache" in inspect.signature(model.forward).parameters
    return {"use_cache": False} if known else {}


def batch_outputs(
    task: Task, model: Any, samples: Samples, progress: Progress | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """A model's answers without gradients, rows of equal length together so that little is padding.

    Args:
        task: whose `output` and batch size are taken.
        model: the model.
        samples: samples of text.
        progress: told about every batch.

    Yields:
        Which rows, (B,), and the output, both on the CPU.

    Raises:
        NumericsError: an output is not finite.
    """
    import torch

    from prunepath.evaluation.mode import device_of, evaluating
    from prunepath.tasks.draws import require_finite

    order = samples.inputs["attention_mask"].sum(1).argsort(descending=True, stable=True)
    batches = torch.split(order, task.counts.batch)
    device = device_of(model)
    with evaluating(model):
        for rows in track(progress, batches, task.metric_name, len(batches)):
            batch = {name: value[rows] for name, value in samples.inputs.items()}
            inputs = {name: value.to(device) for name, value in _trimmed(batch).items()}
            output = task.output(model, inputs)
            require_finite(output)
            yield rows, output.cpu()


def _trimmed(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the columns on the right that are padding in every row."""
    width = int(inputs["attention_mask"].any(0).nonzero().max()) + 1
    return {
        name: value[:, :width] if name in _TOKENWISE else value for name, value in inputs.items()
    }
