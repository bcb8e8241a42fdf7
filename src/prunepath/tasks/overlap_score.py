"""How well predicted regions overlap with those of masks: counts, summed over images.

Shapes: B images, H and W height and width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunepath.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Overlap"]


class Overlap:
    """Pixels by class: in both, in the prediction, in the mask.

    Example:
        >>> import torch
        >>> overlap = Overlap()
        >>> overlap.add(torch.tensor([[[0, 0], [1, 1]]]), torch.tensor([[[0, 0], [0, 1]]]))
        >>> round(overlap.mean_iou("a mask"), 2), overlap.pixel_accuracy()
        (58.33, 75.0)
    """

    def __init__(self) -> None:
        self._both: dict[int, int] = {}
        self._predicted: dict[int, int] = {}
        self._true: dict[int, int] = {}

    def add(self, predicted: Tensor, true: Tensor) -> None:
        """Count a batch.

        Args:
            predicted: classes (B, H, W).
            true: classes of the masks (B, H, W), negative where they say nothing.
        """
        import torch

        known = true >= 0
        predicted, true = predicted[known], true[known]
        for table, values in (
            (self._both, true[predicted == true]),
            (self._predicted, predicted),
            (self._true, true),
        ):
            found, counts = torch.unique(values, return_counts=True)
            for index, count in zip(found.tolist(), counts.tolist(), strict=True):
                table[index] = table.get(index, 0) + count

    def mean_iou(self, source: str) -> float:
        """Mean over classes of intersection over union, in percent.

        Raises:
            DataError: no pixel was counted.
        """
        if not self._true:
            raise DataError(
                f"no pixel of the masks of {source} has a class, so nothing can be compared; check "
                "that the masks hold class ids"
            )
        classes = set(self._true) | set(self._predicted)
        shares = [
            self._both.get(index, 0)
            / (self._true.get(index, 0) + self._predicted.get(index, 0) - self._both.get(index, 0))
            for index in classes
        ]
        return 100 * sum(shares) / len(shares)

    def pixel_accuracy(self) -> float:
        """Share of pixels with the right class, in percent."""
        return 100 * sum(self._both.values()) / sum(self._true.values())

    def mean_accuracy(self) -> float:
        """Mean over the masks' classes of the share of their pixels that was found, in percent."""
        shares = [self._both.get(index, 0) / count for index, count in self._true.items()]
        return 100 * sum(shares) / len(shares)
