"""Quality figures over predictions and labels, as the field states them, in percent.

Shapes: N rows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from prunepath.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["accuracy", "macro_f1", "pearson", "spearman"]


def accuracy(predicted: Tensor, labels: Tensor) -> float:
    """Rows that are right, in percent.

    Args:
        predicted: (N,), at least one row.
        labels: (N,).
    """
    return 100.0 * int((predicted == labels).sum()) / len(labels)


def macro_f1(predicted: Tensor, labels: Tensor) -> float:
    """F1 of every class, averaged with equal weight, in percent.

    Args:
        predicted: class indices, (N,), at least one row.
        labels: class indices, (N,).

    Returns:
        The mean over the classes that occur among the labels or the predictions.
    """
    scores = []
    for each in {*labels.tolist(), *predicted.tolist()}:
        right = int(((predicted == each) & (labels == each)).sum())
        named = int((predicted == each).sum()) + int((labels == each).sum())
        scores.append(2 * right / named)
    return 100.0 * sum(scores) / len(scores)


def pearson(predicted: Tensor, labels: Tensor) -> float:
    """Linear correlation, times 100.

    Args:
        predicted: numbers, (N,).
        labels: numbers, (N,).

    Returns:
        -100 to 100; 0 where all predictions are equal, which is what a collapsed model says.

    Raises:
        DataError: all labels are equal, or there are fewer than two.
    """
    own = predicted.double() - predicted.double().mean()
    other = labels.double() - labels.double().mean()
    spread = float(other.square().sum())
    if len(labels) < 2 or spread == 0:
        raise DataError(
            f"a correlation was asked for, but the {len(labels)} labels do not differ; give rows "
            "with different labels"
        )
    scale = math.sqrt(float(own.square().sum()) * spread)
    return 100.0 * float((own * other).sum()) / scale if scale else 0.0


def spearman(predicted: Tensor, labels: Tensor) -> float:
    """Correlation of the ranks, times 100; equal numbers share the mean of their ranks.

    Args:
        predicted: numbers, (N,).
        labels: numbers, (N,).

    Returns:
        -100 to 100; 0 where all predictions are equal.

    Raises:
        DataError: all labels are equal, or there are fewer than two.
    """
    return pearson(_ranks(predicted), _ranks(labels))


def _ranks(values: Tensor) -> Tensor:
    import torch

    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    ranks: Tensor = (last - (counts.double() - 1) / 2)[place]
    return ranks
