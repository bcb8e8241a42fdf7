"""Recall of image-text retrieval: how often the right one is among the first K.

Shapes: N pairs, M different images, D width of an embedding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["recalls"]

_ROWS = 256


def recalls(
    images: Tensor, texts: Tensor, groups: Tensor, ranks: tuple[int, ...] = (1, 5, 10)
) -> dict[str, float]:
    """Recall in both directions, every image counted once and every caption once.

    An image has found its text when any of its captions is among the first K. Ties count against
    the model: one that says the same of everything has found nothing.

    Args:
        images: embeddings (N, D).
        texts: embeddings (N, D).
        groups: which image each row is of (N,).
        ranks: the K.

    Returns:
        `"image-to-text R@1"`, ... and `"text-to-image R@1"`, ..., in percent.
    """
    import torch

    distinct, which = torch.unique(groups.to(images.device), return_inverse=True)
    first = torch.full_like(distinct, len(groups))
    first.scatter_reduce_(0, which, torch.arange(len(groups), device=images.device), "amin")
    unique = images[first].float()
    texts = texts.float()
    to_text, to_image = [], []
    for start in range(0, len(unique), _ROWS):
        scores = unique[start : start + _ROWS] @ texts.T
        own = which == torch.arange(start, start + len(scores), device=which.device).unsqueeze(1)
        best = scores.masked_fill(~own, -torch.inf).amax(1, keepdim=True)
        to_text.append(((scores >= best) & ~own).sum(1))
    for start in range(0, len(texts), _ROWS):
        scores = texts[start : start + _ROWS] @ unique.T
        own = scores.gather(1, which[start : start + _ROWS].unsqueeze(1))
        to_image.append((scores >= own).sum(1) - 1)
    return {
        f"{direction} R@{rank}": 100 * float((torch.cat(places) < rank).double().mean())
        for direction, places in (("image-to-text", to_text), ("text-to-image", to_image))
        for rank in ranks
    }
