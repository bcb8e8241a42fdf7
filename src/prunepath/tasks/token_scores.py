"""How well a model names tokens at the positions that count: likelihood and accuracy.

Shapes: N samples, T positions, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunepath.errors import DataError
from prunepath.progress import Progress, track

if TYPE_CHECKING:
    from torch import Tensor

    from prunepath.data.samples import Samples
    from prunepath.tasks.task import Task

__all__ = ["TokenScores", "score_tokens"]


@dataclass(frozen=True)
class TokenScores:
    """Figures over all tokens that count.

    Args:
        nll: mean negative log-likelihood in nats.
        accuracy: tokens that are the likeliest at their position, in percent.
        num_tokens: how many tokens those are.
    """

    nll: float
    accuracy: float
    num_tokens: int


def score_tokens(
    task: Task,
    model: Any,
    samples: Samples,
    labels: Tensor,
    ignored: int,
    progress: Progress | None = None,
) -> TokenScores:
    """Compare a model's logits with labels.

    Args:
        task: whose `output` gives logits (B, T, V), and whose batch size is taken.
        model: the model.
        samples: what it reads.
        labels: token ids, (N, T).
        ignored: the label of positions that do not count.
        progress: told about every batch.

    Raises:
        DataError: no position counts.
        NumericsError: the logits are not finite.
    """
    import torch

    from prunepath.evaluation.mode import device_of, evaluating
    from prunepath.tasks.draws import require_finite

    num_tokens = int((labels != ignored).sum())
    if num_tokens == 0:
        raise DataError(
            f"there is no token to name in {samples.description}; give rows that hold text"
        )
    total, right = 0.0, 0
    device = device_of(model)
    size = task.counts.batch
    starts = range(0, len(samples), size)
    with evaluating(model):
        for start in track(progress, starts, task.metric_name, len(starts)):
            rows = slice(start, start + size)
            inputs = {name: value[rows].to(device) for name, value in samples.inputs.items()}
            logits = task.output(model, inputs)
            wanted = labels[rows].to(logits.device)
            keep = wanted != ignored
            answers, wanted = logits[keep].float(), wanted[keep]
            require_finite(answers)
            losses = torch.nn.functional.cross_entropy(answers, wanted, reduction="none")
            total += float(losses.double().sum())
            right += int((answers.argmax(-1) == wanted).sum())
    return TokenScores(total / num_tokens, 100.0 * right / num_tokens, num_tokens)
