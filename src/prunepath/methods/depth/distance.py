"""How far an answer is from the dense model's, as FinerCut measures it: by row, then the mean.

    js       1/2 KL(p || m) + 1/2 KL(q || m), m = (p + q) / 2, in nats
    angular  arccos(cos(a, b)) / pi between the answers themselves (logits, embeddings)
    kl       the task's own distance, KL(p || q) in nats where the answer is a distribution

p, a the dense answer's, q, b those without some sub-layers. FinerCut's released code takes the
arguments of its two divergences the other way round; the definition (Lin 1991) is here.

Shapes: R rows that count, V classes, vocabulary or coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from prunepath.data.samples import Samples
from prunepath.errors import RequestError
from prunepath.tasks.task import Task

__all__ = ["DISTANCES", "output_distance", "require_distance"]

DISTANCES = ("js", "kl", "angular")

_CHUNK = 256  # rows of a vocabulary at a time
_FEW = 2**22
"""Answers up to so many numbers are compared in float64: small distances are small differences."""


def require_distance(task: Task, distance: str) -> None:
    """Refuse a distance that a task's answer does not have.

    Raises:
        RequestError: naming those it has.
    """
    if distance == "js" and not task.distribution:
        raise RequestError(
            f"the distance 'js' compares distributions, and the answer of the task '{task.name}' "
            "is none; use distance=kl (the task's own distance) or distance=angular"
        )


def output_distance(
    task: Task, distance: str, output: Tensor, dense: Tensor, samples: Samples
) -> tuple[float, int]:
    """The mean distance of an answer to the dense one, and how many rows it is over.

    Args:
        task: what the answers are to.
        distance: one of `DISTANCES`.
        output: the answer, (..., V).
        dense: the dense answer, same shape.
        samples: what both are answers to.
    """
    keep = task.counted(output, samples)
    rows = output.shape[:-1].numel() if keep is None else int(keep.sum())
    if output.numel() <= _FEW:
        output, dense = output.double(), dense.double()
    if distance == "kl":
        weight = rows if task.loss_rows == "token" else len(samples)
        return float(task.distance(output, dense, samples)), weight
    if distance == "js" and output.shape[-1] == 1:
        raise RequestError(
            "the distance 'js' compares distributions, and the model answers with one number a "
            "sample; use distance=kl (the task's own distance)"
        )
    if keep is not None:
        keep = keep.to(output.device)
        output, dense = output[keep], dense[keep]
    own, other = (part.reshape(-1, part.shape[-1]) for part in (output, dense))
    measure = _js if distance == "js" else _angle
    return _sum_of_rows(measure, own, other) / max(1, rows), rows


def _sum_of_rows(measure: Callable[[Tensor, Tensor], Tensor], own: Tensor, dense: Tensor) -> float:
    total = 0.0
    for one, two in zip(*(torch.split(part, _CHUNK) for part in (own, dense)), strict=True):
        wide = torch.promote_types(one.dtype, torch.float32)
        total += float(measure(one.to(wide), two.to(wide)).double().sum())
    return total


def _js(own: Tensor, dense: Tensor) -> Tensor:
    """(R,), of logits (R, V)."""
    log_q, log_p = torch.log_softmax(own, dim=-1), torch.log_softmax(dense, dim=-1)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    halves = (log.exp() * (log - log_m) for log in (log_p, log_q))
    return sum((half.sum(-1) for half in halves), own.new_zeros(len(own))) / 2


def _angle(own: Tensor, dense: Tensor) -> Tensor:
    """(R,), in parts of pi; from chords, which tell small angles apart (`statistics.influence`)."""
    one, two = functional.normalize(own, dim=-1), functional.normalize(dense, dim=-1)
    return 2 / math.pi * torch.atan2((one - two).norm(dim=-1), (one + two).norm(dim=-1))
