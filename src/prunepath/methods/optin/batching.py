"""Which samples run in one pass: texts with others of about their length, so little is padding.

A batch of sentences is mostly padding: 128 of SST-2 that average 14 tokens are padded to the 50 of
the longest. Put together by length and cut to the longest of each pass, the same sentences are a
third of the rows, and no row that is compared is another.

Shapes: N samples, T positions of a side (texts may have two: read and written).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from prunepath.data.samples import Samples

__all__ = ["MASKS", "by_length", "lengths", "masks_of", "trimmed"]

MASKS = ("attention_mask", "decoder_attention_mask")
"""Inputs that mark padding, one a side."""
_A_PASS = 64
"""What a pass costs beside its rows: those of the largest one divided by this."""


def masks_of(samples: Samples) -> dict[str, Tensor]:
    """The masks (N, T) that say something, by name."""
    found = {name: samples.inputs[name] for name in MASKS if name in samples.inputs}
    return {name: mask for name, mask in found.items() if mask.ndim == 2 and mask.any()}


def trimmed(samples: Samples) -> Samples:
    """Without the columns on the right that are padding in every sample.

    What is padded on the left stays: some models count positions from there.
    """
    inputs, labels = dict(samples.inputs), samples.labels
    for name, mask in masks_of(samples).items():
        width = int(mask.any(0).nonzero().max()) + 1
        side = name.partition("attention_mask")[0]
        for other, value in inputs.items():
            same_side = other.startswith("decoder_") == bool(side)
            if same_side and value.ndim == 2 and value.shape[1] == mask.shape[1]:
                inputs[other] = value[:, :width]
        answered = bool(side) or MASKS[1] not in samples.inputs  # labels are of what is written
        if labels is not None and labels.ndim == 2 and answered:
            labels = labels[:, :width] if labels.shape[1] == mask.shape[1] else labels
    return replace(samples, inputs=inputs, labels=labels, fingerprint=samples.fingerprint)


def lengths(samples: Samples) -> list[int]:
    """Positions of every sample up to its last that is no padding, of all sides together."""
    total = torch.zeros(len(samples), dtype=torch.int64)
    for mask in masks_of(samples).values():
        places = torch.arange(1, mask.shape[1] + 1)
        total += (mask.bool() * places).amax(1)
    return [int(length) for length in total]


def by_length(lengths: Sequence[int], rows: int, most: int) -> list[list[int]]:
    """Divide samples into passes so that rows, padding included, and passes together are fewest.

    Args:
        lengths: of every sample.
        rows: of one pass, padding included; a sample that is longer runs alone.
        most: samples of one pass.

    Returns:
        Samples of every pass, ascending; passes with short samples first.

    Example:
        >>> by_length([9, 2, 3, 2], rows=256, most=8)
        [[1, 2, 3], [0]]
    """
    order = sorted(range(len(lengths)), key=lambda sample: lengths[sample])
    extra = rows / _A_PASS
    # The cheapest division of the first so many, and where its last pass begins.
    cheapest, begins = [0.0], [0]
    for stop in range(1, len(order) + 1):
        longest = max(1, lengths[order[stop - 1]])
        first = max(0, stop - max(1, min(most, rows // longest)))
        costs = [cheapest[i] + (stop - i) * longest + extra for i in range(first, stop)]
        best = min(range(len(costs)), key=costs.__getitem__)
        cheapest.append(costs[best])
        begins.append(first + best)
    passes: list[list[int]] = []
    stop = len(order)
    while stop:
        passes.insert(0, sorted(order[begins[stop] : stop]))
        stop = begins[stop]
    return passes
