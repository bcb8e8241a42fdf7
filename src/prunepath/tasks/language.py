"""What tasks on text share: a tokenizer that must be there, windows of text, random tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunepath.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from prunepath.data.windows import TokenWindows
    from prunepath.tasks.task import DataRequest

__all__ = ["WINDOW", "random_ids", "require_tokenizer", "text_windows"]

WINDOW = 512
"""Tokens per window unless the user says otherwise."""

_SHORT = 64


def require_tokenizer(opened: Any) -> Any:
    """The tokenizer of an opened model.

    Raises:
        DataError: it has none.
    """
    if opened.tokenizer is None:
        raise DataError(
            f"'{opened.model_id}' has no tokenizer beside it, and text was given; pass one with "
            "--tokenizer (tokenizer=...)"
        )
    return opened.tokenizer


def text_windows(opened: Any, data: Any, request: DataRequest) -> TokenWindows:
    """Cut text into windows, as `token_windows` does; None is the text in the package.

    Args:
        opened: an opened model (`checkpoint.source.OpenedModel`).
        data: what `open_texts` takes.
        request: how much of it.

    Raises:
        DataError: no tokenizer, no text, or too little of it.
        RequestError: a number is out of range, or a split of something that has none.
    """
    from prunepath.data.windows import token_windows

    return token_windows(
        data,
        require_tokenizer(opened),
        window=WINDOW if request.window is None else request.window,
        count=request.count,
        extra=request.extra,
        field=request.field or "text",
        split=request.split,
    )


def random_ids(model: Any, count: int, window: int | None = None, seed: int = 0) -> Tensor:
    """Random token ids of a model's vocabulary.

    Args:
        model: a model of transformers.
        count: rows B.
        window: tokens per row T; None: 64, or what the model's context holds.
        seed: of the draw.

    Returns:
        (B, T), int64, on the CPU; the same for every model of one vocabulary.
    """
    import torch

    config = model.config.get_text_config()
    if window is None:
        longest = getattr(config, "max_position_embeddings", None)
        window = min(_SHORT, longest) if isinstance(longest, int) else _SHORT
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(int(config.vocab_size), (count, window), generator=generator)
