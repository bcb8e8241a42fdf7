"""Perplexity at a stated window: the quality every size is compared by.

The negative log-likelihood is the mean over the tokens at positions 1 to W-1 of every window, each
predicted from the tokens before it in its own window. Logits are computed in the model's own
precision and turned into losses a few hundred positions at a time, so that no second array of the
size (tokens x vocabulary) is needed; the sum over tokens is kept in float64.

Shapes: B windows in a batch, W tokens per window, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prunepath.errors import NumericsError, RequestError
from prunepath.evaluation.mode import device_of, evaluating
from prunepath.progress import Progress, track

if TYPE_CHECKING:
    from prunepath.data.samples import Samples

__all__ = ["Perplexity", "perplexity", "token_losses", "window_losses"]

# Positions whose losses are computed at once: 256 x 49152 float32 logits are 50 MB.
_POSITIONS = 256


@dataclass(frozen=True)
class Perplexity:
    """A measured perplexity and what it was measured on.

    Args:
        value: exp(nll); infinity where that exceeds float64.
        nll: mean negative log-likelihood per predicted token, in nats.
        num_tokens: how many tokens were predicted, N x (W - 1) where nothing is padding.
        window: tokens per window W.
    """

    value: float
    nll: float
    num_tokens: int
    window: int


def perplexity(
    model: nn.Module,
    windows: Samples,
    *,
    batch_size: int = 1,
    progress: Progress | None = None,
) -> Perplexity:
    """Measure the perplexity of a causal language model.

    Args:
        model: a causal language model of transformers.
        windows: the text to be predicted; an `attention_mask` of its marks what is not.
        batch_size: windows per forward pass; memory grows with it (B x W x V logits).
        progress: told about every batch.

    Returns:
        Perplexity over all predicted tokens, each counted once.

    Raises:
        NumericsError: the loss of a window is NaN or infinite; the window is named.
        RequestError: `batch_size` is below 1.
    """
    if batch_size < 1:
        raise RequestError(f"batch_size={batch_size} was asked for; use at least 1")
    device = device_of(model)
    total, num_tokens = 0.0, 0
    num_batches = math.ceil(len(windows) / batch_size)
    with evaluating(model):
        batches = track(progress, windows.batches(batch_size), "perplexity", num_batches)
        for index, batch in enumerate(batches):
            losses, known = window_losses(model, batch.to(device))
            num_tokens += int(known.sum())
            sums = losses.where(known, 0.0).sum(dim=1)
            _require_finite(sums, index * batch_size, windows.description)
            total += float(sums.sum())
    nll = total / max(1, num_tokens)
    return Perplexity(_exp(nll), nll, num_tokens, int(windows.inputs["input_ids"].shape[1]))


def window_losses(model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Losses of all predicted tokens of some windows, and which of them are no padding.

    Args:
        model: a causal language model.
        inputs: keywords of its forward, on its device.

    Returns:
        Losses in nats (B, W - 1), float64, and booleans of that shape.
    """
    ids = inputs["input_ids"]
    logits = model(**inputs, use_cache=False).logits
    losses = token_losses(logits[:, :-1], ids[:, 1:])
    known = torch.ones_like(losses, dtype=torch.bool)
    if "attention_mask" in inputs:
        real = inputs["attention_mask"].bool()
        known = real[:, :-1] & real[:, 1:]
    return losses, known


def token_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of every target token, a few positions at a time.

    Args:
        logits: (B, T, V), any float type.
        targets: token ids (B, T).

    Returns:
        Losses in nats (B, T), float64.
    """
    losses = torch.empty(targets.shape, dtype=torch.float64, device=logits.device)
    for start in range(0, targets.shape[1], _POSITIONS):
        part = slice(start, start + _POSITIONS)
        # One row per token, vocabulary last: the layout its kernel is fast in. float32 is exact
        # enough for one token.
        rows = logits[:, part].flatten(0, 1).float()
        wanted = targets[:, part]
        flat = nn.functional.cross_entropy(rows, wanted.flatten(), reduction="none")
        losses[:, part] = flat.view(wanted.shape).double()
    return losses


def _require_finite(sums: Tensor, first_window: int, description: str) -> None:
    bad = (~torch.isfinite(sums)).nonzero().flatten()
    if len(bad):
        raise NumericsError(
            f"the loss of window {first_window + int(bad[0])} of {description} is "
            f"{float(sums[bad[0]])}; check the weights for NaN or infinity, and use float32 or "
            "bfloat16 where float16 overflows"
        )


def _exp(nll: float) -> float:
    try:
        return math.exp(nll)
    except OverflowError:
        return math.inf
