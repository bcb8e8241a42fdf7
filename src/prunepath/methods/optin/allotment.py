"""How many probes every sample and feature gets: more where more of the scores comes from.

The estimate of unit j is a sum over samples b and features z of independent parts with means t_bjz,
each a mean over P probes and so of variance 2 t_bjz^2 / P. With W = mean over units of
(t_bjz / t_j)^2 and the price a of a backward pass, the mean relative variance under a given total
price is smallest for P proportional to sqrt(W / a) (Neyman 1934). W is read off a pilot on a few
units of every place; that the pilot is random makes the shares a little worse, and no mean wrong.

Shapes: B samples, J units that are watched, Z features, C chunks of samples that run together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prunepath.methods.method import FloatArray
from prunepath.structure.units import Structure

__all__ = ["Allotment", "Pilot", "alike", "cheapest_chunks", "padded"]

_WATCHED = 16
"""Units of every place that the pilot is kept of, sample by sample."""
_POOLS = (1, 2, 4, 8)
"""Out of so many chunks' samples those of about one length may be put together."""
_ALIKE = 3.0
"""Samples run together whose W differ by less than this factor: probes go by its root."""


@dataclass(frozen=True, eq=False)
class Pilot:
    """Squares of a few units, sample by sample.

    Args:
        squares: (B, J, Z), added to in place.
        units: group -> which of its units are watched.
    """

    squares: Tensor
    units: Mapping[str, Tensor]

    @classmethod
    def empty(cls, structure: Structure, samples: int, features: int) -> Pilot:
        """Nothing seen yet; units spread evenly over every finest group."""
        units = {
            group.name: torch.linspace(
                0, group.num_units - 1, min(_WATCHED, group.num_units)
            ).long()
            for group in structure.finest_groups
        }
        watched = sum(len(chosen) for chosen in units.values())
        return cls(torch.zeros(samples, watched, features), units)

    def add_(
        self, samples: Sequence[int], feature: int, found: Mapping[str, Tensor], weight: float
    ) -> None:
        """Add what one probe of a feature found, group -> (B, U)."""
        start = 0
        for name, chosen in self.units.items():
            stop = start + len(chosen)
            if name in found:
                squares = found[name].index_select(1, chosen.to(found[name].device)).square()
                here = squares.float().cpu() * weight
                self.squares[list(samples), start:stop, feature] += here
            start = stop

    def importance(self) -> FloatArray:
        """W, the mean over units of (t_bjz / t_j)^2, (B, Z)."""
        squares = self.squares.double()
        total = squares.sum((0, 2), keepdim=True)
        seen = (total > 0).flatten()
        if not seen.any():
            return np.ones((len(squares), squares.shape[-1]))
        shares = squares[:, seen] / total[:, seen]
        found = np.asarray(shares.square().mean(1).numpy(), dtype=np.float64)
        # Half of it as if samples and features had nothing to do with each other: sums over either
        # are less noisy than what one probe says of both.
        apart = found.sum(1, keepdims=True) * found.sum(0, keepdims=True) / found.sum()
        return np.asarray((found + apart) / 2)


@dataclass(frozen=True)
class Allotment:
    """Probes of every feature, chunk by chunk.

    Args:
        probes: (C, Z), at least 1 where a gate lies in front of the feature.
        spent: their price, in backward passes of all samples through the whole model.
    """

    probes: tuple[tuple[int, ...], ...]
    spent: float

    @classmethod
    def of(
        cls,
        importance: FloatArray,
        chunks: Sequence[Sequence[int]],
        costs: Sequence[float],
        budget: float,
        prices: Sequence[float] | None = None,
    ) -> Allotment:
        """Share a budget out.

        Args:
            importance: W, (B, Z).
            chunks: samples that run together.
            costs: price of a probe of each feature on all samples, (Z,); 0: there is none.
            budget: what all probes may cost; a probe for everyone is never refused.
            prices: of every chunk, as a share of a pass over all; by default its samples' share.

        Returns:
            As many probes as fit.
        """
        reached = np.asarray(costs) > 0
        if prices is None:
            samples = sum(len(chunk) for chunk in chunks)
            prices = [len(chunk) / samples for chunk in chunks]
        price = np.array(prices)[:, None] * np.asarray(costs)
        weight = np.stack([importance[list(chunk)].sum(0) for chunk in chunks])
        wish = np.sqrt(weight / np.where(reached, price, 1.0)) * reached

        def given(scale: float) -> FloatArray:
            counts: FloatArray = np.maximum(1.0, np.floor(scale * wish)) * reached
            return counts

        if not wish.any():
            wish = np.ones_like(price) * reached
        low, high = 0.0, (budget + 1.0) / max(float((price * wish).sum()), 1e-300)
        while (price * given(high)).sum() < budget and high < 1e300:
            high *= 2
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if (price * given(middle)).sum() <= budget else (low, middle)
        counts = given(low)
        return cls(
            tuple(tuple(int(n) for n in row) for row in counts), float((price * counts).sum())
        )


def alike(importance: FloatArray, size: int) -> list[list[int]]:
    """Samples put together by how much they count.

    Args:
        importance: W of every sample, (B,).
        size: most samples of one chunk.

    Returns:
        Chunks of samples, those that count most first; ascending in each.
    """
    chunks: list[list[int]] = []
    largest = 0.0
    for sample in np.argsort(-importance, kind="stable"):
        if not chunks or len(chunks[-1]) == size or largest > _ALIKE * importance[sample]:
            chunks.append([])
            largest = float(importance[sample])
        chunks[-1].append(int(sample))
    return [sorted(chunk) for chunk in chunks]


def padded(chunk: Sequence[int], lengths: Sequence[int]) -> int:
    """Rows of a chunk whose samples are padded to the longest of them."""
    return len(chunk) * max(1, *(lengths[sample] for sample in chunk))


def cheapest_chunks(
    importance: FloatArray, lengths: Sequence[int], costs: Sequence[float], size: int
) -> list[list[int]]:
    """Samples put together by how much they count, or by that and by their length.

    What counts alike wants equally many probes, what is about as long wants no padding. With
    probes shared out best, the variance times the price is (sum of sqrt(W a))^2 over chunks and
    features, so of several divisions the one with the least sum is taken.

    Args:
        importance: W, (B, Z).
        lengths: rows of every sample, as far as they cannot be cut.
        costs: price of a probe of each feature, (Z,).
        size: most samples of one chunk.

    Returns:
        Chunks of samples, ascending in each.
    """

    def pooled(chunks: int) -> list[list[int]]:
        found = []
        for pool in alike(importance.sum(1), size * chunks):
            ordered = sorted(pool, key=lambda sample: lengths[sample])
            found += [sorted(ordered[i : i + size]) for i in range(0, len(pool), size)]
        return found

    def root_of_price(chunks: Sequence[Sequence[int]]) -> float:
        weight = np.stack([importance[list(chunk)].sum(0) for chunk in chunks])
        rows = np.array([padded(chunk, lengths) for chunk in chunks])
        return float(np.sqrt(weight * rows[:, None] * np.asarray(costs)).sum())

    return min(map(pooled, _POOLS), key=root_of_price)
