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
    probabilities = _softmax(logits)
    flat = probabilities.view(-1, probabilities.shape[-1])
    # Inverse-transform sampling: one uniform number per token keeps the draw independent of how
    # windows are batched, and needs no second copy of the probabilities.
    uniform = torch.rand(flat.shape[0], 1, generator=generator, dtype=torch.float32)
    labels = torch.searchsorted(flat.cumsum(-1), uniform.to(flat.device)).clamp_(
        max=flat.shape[-1] - 1
    )
    flat.scatter_add_(1, labels, torch.full_like(labels, -1, dtype=flat.dtype))
    return probabilities


def _next_tokens(logits: Tensor, ids: Tensor, generator: torch.Generator) -> Tensor:
    gradient = _softmax(logits)
    labels = ids[:, 1:].unsqueeze(-1)
    gradient[:, :-1].scatter_add_(-1, labels, torch.full_like(labels, -1, dtype=gradient.dtype))
    gradient[:, -1] = 0  # the last token predicts something outside the window
    return gradient


def _softmax(logits: Tensor) -> Tensor:
    probabilities = torch.softmax(logits.detach().float(), dim=-1)
    if not torch.isfinite(probabilities).all():
        raise NumericsError(
            "the model's logits hold NaN or infinity on calibration text; check its weights, or "
            "load it in float32 or bfloat16 instead of float16"
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
