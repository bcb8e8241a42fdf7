"""Cholesky factors of second moments that rounding has left slightly indefinite."""

from __future__ import annotations

import torch
from torch import Tensor

from prunepath.errors import NumericsError

__all__ = ["factor"]

_ATTEMPTS = 8


def factor(system: Tensor, ridge: float) -> Tensor:
    """Lower Cholesky factor of a symmetric matrix, with more ridge where it needs it.

    Sums of a few massive activations in float32 carry rounding errors larger than the smallest
    eigenvalues. Where that makes the matrix indefinite, the diagonal is raised by `ridge`, then by
    ten times as much, and so on; a matrix that is definite already is not touched.

    Args:
        system: float64, (n, n).
        ridge: the first amount to add, above 0.

    Raises:
        NumericsError: it is not finite, or stays indefinite.

    Example:
        >>> factor(torch.tensor([[4.0]], dtype=torch.float64), 1e-3).item()
        2.0
    """
    lower: Tensor
    lower, failed = torch.linalg.cholesky_ex(system)
    for attempt in range(_ATTEMPTS):
        if not failed:
            return lower
        raised = system.clone()
        raised.diagonal().add_(ridge * 10.0**attempt)
        lower, failed = torch.linalg.cholesky_ex(raised)
    if failed:
        raise NumericsError(
            "a matrix of second moments cannot be factored, even with a strong ridge; the "
            "statistics may hold NaN, or come from too little text, so search with more windows"
        )
    return lower
