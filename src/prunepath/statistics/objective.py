"""What the search minimises, told as a gradient of logits.

`kl` is the divergence from the dense model's own predictions and needs no labels. At the dense
model its gradient is zero and all signal is curvature; drawing labels from the model and taking
the cross-entropy gradient gives squared gradients whose mean is exactly that curvature (the
Gauss-Newton matrix of the divergence). `task` takes the data's own labels instead.

Tasks whose answer is a distribution share these functions; the memory of the logits, the largest
tensor of a pass by far, is used again for their gradient.

Shapes: ... any leading axes, usually (B, T) or (B,); V classes or vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunepath.errors import NumericsError, RequestError

__all__ = ["OBJECTIVES", "draw_labels_", "kl_to_dense", "require_objective", "take_labels_"]

OBJECTIVES = ("kl", "task")

_ROWS = 64


def require_objective(objective: str) -> None:
    """Refuse what no task has.

    Raises:
        RequestError: an unknown objective.
    """
    if objective not in OBJECTIVES:
        raise RequestError(
            f"unknown objective '{objective}'; use 'kl' (match the dense model, no labels) or "
            "'task' (the data's own labels or next tokens)"
        )


def draw_labels_(logits: Tensor, generator: torch.Generator, keep: Tensor | None = None) -> Tensor:
    """Gradient of the summed cross-entropy to labels drawn from the logits themselves.

    Args:
        logits: (..., V), overwritten.
        generator: on the CPU; gives one uniform number per row, kept or not.
        keep: bool (...), the rows that count; None: all of them.

    Returns:
        (..., V) in the memory of the logits; zero in rows that do not count.

    Raises:
        NumericsError: the logits of a row that counts are not finite.
    """
    gradient = _softmax_in_place(logits, keep)
    for rows in torch.split(gradient.view(-1, gradient.shape[-1]), _ROWS):
        # Inverse-transform sampling: one uniform number per token keeps the draw independent of
        # how windows are batched. A few rows at a time keep the running sums small.
        uniform = torch.rand(len(rows), 1, generator=generator, dtype=torch.float32)
        sums = rows.float().cumsum(-1)
        label = torch.searchsorted(sums, uniform.to(rows.device) * sums[:, -1:])
        label.clamp_(max=rows.shape[-1] - 1)
        rows.scatter_add_(1, label, torch.full_like(label, -1, dtype=rows.dtype))
    return _only(gradient, keep)


def take_labels_(logits: Tensor, labels: Tensor, keep: Tensor | None = None) -> Tensor:
    """Gradient of the summed cross-entropy to given labels.

    Args:
        logits: (..., V), overwritten.
        labels: (...), int64; anything legal where a row does not count.
        keep: bool (...), the rows that count; None: all of them.

    Returns:
        (..., V) in the memory of the logits; zero in rows that do not count.

    Raises:
        NumericsError: the logits of a row that counts are not finite.
    """
    gradient = _softmax_in_place(logits, keep)
    label = labels.to(gradient.device).unsqueeze(-1)
    gradient.scatter_add_(-1, label, torch.full_like(label, -1, dtype=gradient.dtype))
    return _only(gradient, keep)


def _only(gradient: Tensor, keep: Tensor | None) -> Tensor:
    if keep is not None:
        gradient[~keep.to(gradient.device, torch.bool)] = 0
    return gradient


def _softmax_in_place(logits: Tensor, keep: Tensor | None) -> Tensor:
    """Probabilities in the memory of the logits.

    The head is linear, so its backward pass does not read what it put out.
    """
    probabilities = logits.detach()
    if not probabilities.is_contiguous():  # a view of something larger: nothing to save
        probabilities = probabilities.contiguous()
    flat = probabilities.view(-1, probabilities.shape[-1])
    counts = None if keep is None else keep.to(flat.device, torch.bool).flatten()
    for start in range(0, len(flat), _ROWS):
        rows = flat[start : start + _ROWS]
        rows.copy_(torch.softmax(rows.float(), dim=-1))
        finite = torch.isfinite(rows).all(-1)
        if counts is not None:
            finite |= ~counts[start : start + _ROWS]
        if not finite.all():
            raise NumericsError(
                "the model's logits hold NaN or infinity on calibration data; check its weights, "
                "or load it in float32 or bfloat16 instead of float16"
            )
    return probabilities


def kl_to_dense(logits: Tensor, dense_logits: Tensor, keep: Tensor | None = None) -> Tensor:
    """Mean divergence per row from the dense predictions, KL(dense || gated).

    Args:
        logits: of the gated or cut model, (..., V).
        dense_logits: of the dense model, same shape.
        keep: bool (...), the rows that count; None: all of them.

    Returns:
        A scalar in nats, differentiable in `logits`; formed in float32, in float64 where they are.
    """
    target = torch.log_softmax(_wide(dense_logits), dim=-1)
    own = torch.log_softmax(_wide(logits), dim=-1)
    divergence = (target.exp() * (target - own)).sum(-1)
    return (divergence if keep is None else divergence[keep.to(divergence.device)]).mean()


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
