"""What the search minimises, told as a gradient of the logits.

`kl` is the divergence from the dense model's own predictions and needs no labels. At the dense
model its gradient is zero and all signal is curvature; drawing labels from the model and taking
the cross-entropy gradient gives squared gradients whose mean is exactly that curvature (the
Gauss-Newton matrix of the divergence). `task` takes the data's own next tokens instead.

Shapes: B windows, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from prunepath.errors import NumericsError, RequestError

__all__ = ["OBJECTIVES", "LogitGradient", "kl_to_dense", "logit_gradient"]

LogitGradient = Callable[[Tensor, Tensor, torch.Generator], Tensor]

OBJECTIVES = ("kl", "task")


def logit_gradient(objective: str) -> LogitGradient:
    """The function (logits (B, T, V), ids (B, T), generator) -> gradient of the summed loss.

    The gradient takes the place of the logits in memory: they hold it afterwards.

    Raises:
        RequestError: an unknown objective.
    """
    if objective == "kl":
        return _sampled_labels
    if objective == "task":
        return _next_tokens
    raise RequestError(
        f"unknown objective '{objective}'; use 'kl' (match the dense model, no labels) or 'task' "
        "(predict the data's next tokens)"
    )


def _sampled_labels(logits: Tensor, ids: Tensor, generator: torch.Generator) -> Tensor:
    gradient = _softmax_in_place(logits)
    for rows in torch.split(gradient.view(-1, gradient.shape[-1]), _ROWS):
        # Inverse-transform sampling: one uniform number per token keeps the draw independent of
        # how windows are batched. A few rows at a time keep the running sums small.
        uniform = torch.rand(len(rows), 1, generator=generator, dtype=torch.float32)
        sums = rows.float().cumsum(-1)
        label = torch.searchsorted(sums, uniform.to(rows.device) * sums[:, -1:])
        label.clamp_(max=rows.shape[-1] - 1)
        rows.scatter_add_(1, label, torch.full_like(label, -1, dtype=rows.dtype))
    return gradient


def _next_tokens(logits: Tensor, ids: Tensor, generator: torch.Generator) -> Tensor:
    gradient = _softmax_in_place(logits)
    labels = ids[:, 1:].unsqueeze(-1)
    gradient[:, :-1].scatter_add_(-1, labels, torch.full_like(labels, -1, dtype=gradient.dtype))
    gradient[:, -1] = 0  # the last token predicts something outside the window
    return gradient


_ROWS = 64


def _softmax_in_place(logits: Tensor) -> Tensor:
    """Probabilities in the memory of the logits, the largest tensor of a pass by far.

    The head is linear, so its backward pass does not read what it put out.
    """
    probabilities = logits.detach()
    for rows in torch.split(probabilities.view(-1, probabilities.shape[-1]), _ROWS):
        rows.copy_(torch.softmax(rows.float(), dim=-1))
        if not torch.isfinite(rows).all():
            raise NumericsError(
                "the model's logits hold NaN or infinity on calibration text; check its weights, "
                "or load it in float32 or bfloat16 instead of float16"
            )
    return probabilities


def kl_to_dense(logits: Tensor, dense_logits: Tensor) -> Tensor:
    """Mean divergence per token from the dense predictions, KL(dense || gated).

    Args:
        logits: of the gated or cut model, (B, T, V).
        dense_logits: of the dense model, same shape.

    Returns:
        A scalar in nats, differentiable in `logits`.
    """
    target = torch.log_softmax(dense_logits.float(), dim=-1)
    own = torch.log_softmax(logits.float(), dim=-1)
    return (target.exp() * (target - own)).sum(-1).mean()
