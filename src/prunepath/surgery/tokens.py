"""Merge tokens that look alike: who goes where, and how the rest keeps count of it.

Bipartite soft matching (Bolya et al., Token Merging, ICLR 2023, section 3), written from its
description. The free tokens of a block are split alternately into two sets, A the odd ones and B
the even ones. Every token of A is linked to the token of B whose attention key is most like its own
(cosine of the keys averaged over heads), and the r best links are merged:

    x_b <- (s_b x_b + sum_a s_a x_a) / (s_b + sum_a s_a)        s_b <- s_b + sum_a s_a

A token of size s stands for s tokens, so attention adds log s to the logits of its key. Two things
differ: tokens keep the order of the image, so that sets go on alternating over it, and every
original token is remembered with where it went, so that behind the last block the full number of
tokens is back and any pooling weighs a merged token by its size.

Shapes: B samples, N tokens in front of all blocks, n in front of this one, D residual width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Merged", "match", "merge"]


@dataclass(frozen=True)
class Merged:
    """What has been merged on the way here.

    Args:
        sizes: how many tokens each one stands for, (B, n), float32; they sum to N.
        where: which of the tokens now stands for each original one, (B, N), int64.
    """

    sizes: Tensor
    where: Tensor

    @classmethod
    def nothing(cls, hidden: Tensor) -> Merged:
        """Before the first block: every token stands for itself."""
        batch, tokens, _ = hidden.shape
        ones = torch.ones(batch, tokens, device=hidden.device, dtype=torch.float32)
        own = torch.arange(tokens, device=hidden.device).expand(batch, -1)
        return cls(ones, own)

    def bias(self, dtype: torch.dtype) -> Tensor:
        """What is added to the logits of the keys, (B, 1, 1, n)."""
        return self.sizes.log().to(dtype)[:, None, None, :]

    def spread(self, hidden: Tensor) -> Tensor:
        """The state of every original token, (B, N, D): that of the token it is part of."""
        return hidden.gather(1, self.where.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))


def match(keys: Tensor, *, key_width: int, protected: int, count: int) -> Tensor:
    """Which tokens become one.

    Args:
        keys: attention keys of all heads side by side, (B, n, heads * key_width).
        key_width: coordinates of one head.
        protected: tokens in front that neither go nor take any.
        count: tokens that go, at most half of the free ones.

    Returns:
        For every token its place among the n - count that are left, (B, n), int64.
    """
    batch, tokens, _ = keys.shape
    mean = keys.reshape(batch, tokens, -1, key_width).mean(-2)
    free = F.normalize(mean[:, protected:].float(), dim=-1)
    taking, going = free[:, 0::2], free[:, 1::2]
    best, partner = (going @ taking.transpose(1, 2)).max(-1)
    gone = best.argsort(dim=-1, descending=True, stable=True)[:, :count]
    places = torch.arange(tokens, device=keys.device).expand(batch, -1)
    into = places.scatter(1, protected + 1 + 2 * gone, protected + 2 * partner.gather(1, gone))
    left = (into == places).cumsum(-1) - 1
    return left.gather(1, into)


def merge(hidden: Tensor, before: Merged, place: Tensor, count: int) -> tuple[Tensor, Merged]:
    """Join tokens to their size-weighted mean.

    Args:
        hidden: residual stream, (B, n, D).
        before: what was merged up to now.
        place: where every token goes, as `match` says.
        count: tokens that go.

    Returns:
        The shorter stream (B, n - count, D), and what has been merged now.
    """
    batch, tokens, width = hidden.shape
    exact = torch.promote_types(hidden.dtype, torch.float32)
    sizes = before.sizes.new_zeros(batch, tokens - count).scatter_add(1, place, before.sizes)
    weighted = hidden.to(exact) * before.sizes.unsqueeze(-1)
    sums = weighted.new_zeros(batch, tokens - count, width)
    sums = sums.scatter_add(1, place.unsqueeze(-1).expand(-1, -1, width), weighted)
    shorter = (sums / sizes.unsqueeze(-1)).to(hidden.dtype)
    return shorter, Merged(sizes, place.gather(1, before.where))
