"""Random draws at an output whose mean outer product is a Gauss-Newton matrix.

A label-free objective is a distance to the dense model's own answer: its gradient at the dense
model is zero and all signal is curvature. A draw z with E[z z'] equal to that curvature turns one
backward pass into an unbiased sample of it. Every function here draws all of a batch from one
generator on the CPU, row by row, so the same seed gives the same draw on every device.

Large vocabularies take sampled labels instead (`statistics.objective.draw_labels_`), which cost one
random number a row.

Shapes: C classes, D width of an embedding, B samples; `...` rows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from prunepath.errors import NumericsError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["fisher_probe", "require_finite", "sign_probe", "similarity_probe"]


def fisher_probe(logits: Tensor, generator: torch.Generator, keep: Tensor | None = None) -> Tensor:
    """A draw for the divergence of class distributions: E[z z'] = diag(p) - p p' in every row.

    z = sum over classes c of e_c sqrt(p_c) (onehot_c - p) with random signs e_c. A sampled label
    has the same mean outer product; the probe has less spread, and costs C random bits a row.

    Args:
        logits: scores of the classes, (..., C).
        generator: of the draw, on the CPU.
        keep: which rows count, (...); the others get a zero gradient. None: all.

    Returns:
        The draw, (..., C), in the type of the logits.

    Raises:
        NumericsError: the logits of a row that counts are not finite.
    """
    import torch

    logits = logits.detach()
    require_finite(logits, keep)
    probabilities = torch.softmax(logits.float(), dim=-1)
    roots = probabilities.sqrt() * _signs(logits, generator)
    draw = roots - probabilities * roots.sum(-1, keepdim=True)
    return _kept(draw, keep).to(logits.dtype)


def sign_probe(values: Tensor, generator: torch.Generator, keep: Tensor | None = None) -> Tensor:
    """A draw for half the squared error: random signs, E[z z'] = 1.

    Args:
        values: predicted numbers, (..., C).
        generator: of the draw, on the CPU.
        keep: which rows count, (...); the others get a zero gradient. None: all.

    Returns:
        The draw, (..., C), in the type of the values.

    Raises:
        NumericsError: the values of a row that counts are not finite.
    """
    values = values.detach()
    require_finite(values, keep)
    return _kept(_signs(values, generator), keep).to(values.dtype)


def similarity_probe(embeddings: Tensor, generator: torch.Generator) -> Tensor:
    """A draw for the similarities S = E E' of a batch, told as a gradient of the embeddings.

    The distance is half the mean squared error of the similarities off the diagonal, per sample
    (see `SentenceEmbedding.distance`). Random signs Z, symmetric with an empty diagonal, give
    sqrt(2 / (B - 1)) Z E. A batch of one has no similarities and gives zero.

    Args:
        embeddings: E, (B, D).
        generator: of the draw, on the CPU.

    Returns:
        The draw, (B, D), in the type of the embeddings.

    Raises:
        NumericsError: the embeddings are not finite.
    """
    embeddings = embeddings.detach()
    require_finite(embeddings)
    rows = embeddings.float()
    count = len(rows)
    signs = _signs(rows.new_empty(count, count), generator).triu(1)
    draw = math.sqrt(2 / max(count - 1, 1)) * ((signs + signs.T) @ rows)
    return draw.to(embeddings.dtype)


def require_finite(output: Tensor, keep: Tensor | None = None) -> None:
    """Refuse an answer that no gradient can be drawn at.

    Args:
        output: the model's answer, (..., C).
        keep: which rows count, (...); None: all.

    Raises:
        NumericsError: a row that counts holds NaN or infinity.
    """
    import torch

    finite = torch.isfinite(output).all(-1)
    if keep is not None:
        finite = finite | ~keep.to(finite.device)
    if not finite.all():
        raise NumericsError(
            f"the model's output is not finite in {int((~finite).sum())} of {finite.numel()} rows; "
            "check its weights, or load it in float32 or bfloat16 instead of float16"
        )


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    """Random +1 and -1 of a shape, float32, on the device of `like`."""
    import torch

    bits = torch.randint(0, 2, like.shape, generator=generator, dtype=torch.int8)
    return (bits * 2 - 1).to(like.device).float()


def _kept(draw: Tensor, keep: Tensor | None) -> Tensor:
    if keep is None:
        return draw
    return draw.where(keep.to(draw.device).unsqueeze(-1), draw.new_zeros(()))
