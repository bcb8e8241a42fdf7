"""Whether calibration has seen evaluation data: looked up by content, not by file name.

A stretch of tokens of the evaluation windows is searched for at every position of the calibration
windows, so shifted copies are found as well. Texts shorter than a stretch, images and sounds are
shared where they are equal as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunepath.errors import DataError, RequestError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from prunepath.data.samples import Samples
    from prunepath.data.windows import TokenWindows

__all__ = ["Shared", "disjoint", "require_disjoint", "shared_samples", "shared_windows"]

_SPAN = 32
# Inputs that are content; the first that a sample has is looked at.
_CONTENT = ("pixel_values", "input_features", "input_values", "input_ids")
# Short sentences ("A man is playing a guitar.") recur by chance in honest splits; that many do not.
_BY_CHANCE = 0.1


@dataclass(frozen=True)
class Shared:
    """Samples that two sets have in common.

    Args:
        calibration: indices of calibration samples, ascending.
        evaluation: indices of evaluation samples, ascending.
        short: whether all of them are texts shorter than a stretch, which recur by chance.
    """

    calibration: tuple[int, ...]
    evaluation: tuple[int, ...]
    short: bool


def shared_windows(
    calibration: TokenWindows, evaluation: TokenWindows, *, span: int = 32
) -> tuple[int, ...]:
    """Which evaluation windows share text with the calibration windows.

    Args:
        calibration: windows the search or the refit has seen.
        evaluation: windows to be measured on; made with the same tokenizer.
        span: how many equal tokens in a row count as shared. Stretches much shorter than a
            sentence occur by chance.

    Returns:
        Indices of evaluation windows, ascending; empty if the two are disjoint.

    Raises:
        RequestError: `span` is longer than a window.
    """
    shortest = min(calibration.window, evaluation.window)
    if not 1 <= span <= shortest:
        raise RequestError(
            f"span={span} was asked for, but the windows have {shortest} tokens; "
            f"use 1 to {shortest}"
        )
    import numpy as np

    seen = np.unique(_stretches(calibration.ids.numpy(), span))
    hits = np.isin(_stretches(evaluation.ids.numpy(), span), seen).any(axis=1)
    return tuple(int(index) for index in np.flatnonzero(hits))


def disjoint(calibration: TokenWindows, evaluation: TokenWindows, *, span: int = 32) -> bool:
    """Whether two sets of windows share no text.

    Args:
        calibration: windows the search or the refit has seen.
        evaluation: windows to be measured on; made with the same tokenizer.
        span: how many equal tokens in a row count as shared.

    Returns:
        True if no evaluation window shares a stretch with a calibration window.

    Raises:
        RequestError: `span` is longer than a window.
    """
    return not shared_windows(calibration, evaluation, span=span)


def shared_samples(calibration: Samples, evaluation: Samples, *, span: int = _SPAN) -> Shared:
    """What two sets of samples of any task have in common.

    Args:
        calibration: samples the search or the refit has seen.
        evaluation: samples to be measured on; made for the same model.
        span: how many equal tokens in a row count as shared; shorter texts are compared whole.

    Returns:
        The indices on both sides.

    Example:
        >>> import torch
        >>> from prunepath.data.samples import Samples
        >>> one = Samples(inputs={"input_ids": torch.tensor([[1, 2], [3, 4]])})
        >>> shared_samples(one, one.rows(1, 2)).calibration
        (1,)
    """
    seen: dict[Any, list[int]] = {}
    for row, keys in enumerate(_keys(calibration, span)):
        for key in keys:
            seen.setdefault(key, []).append(row)
    mine: set[int] = set()
    theirs: set[int] = set()
    short = True
    for row, keys in enumerate(_keys(evaluation, span)):
        for key in keys:
            if key in seen:
                mine.update(seen[key])
                theirs.add(row)
                short = short and isinstance(key, tuple)
    return Shared(tuple(sorted(mine)), tuple(sorted(theirs)), short)


def require_disjoint(calibration: Samples, evaluation: Samples, tokenizer: Any = None) -> Samples:
    """Calibration samples that share nothing with the evaluation samples.

    Short sentences that recur are left out of the calibration; anything else is refused.

    Args:
        calibration: samples for a search.
        evaluation: samples to be measured on.
        tokenizer: shows what is shared; None shows its place only.

    Returns:
        The calibration samples, or those of them that are nowhere in the evaluation data.

    Raises:
        DataError: the two share content.
    """
    found = shared_samples(calibration, evaluation)
    if not found.evaluation:
        return calibration
    if found.short and len(found.calibration) <= _BY_CHANCE * len(calibration):
        return calibration.without(set(found.calibration))
    first = found.evaluation[0]
    raise DataError(
        f"calibration and evaluation data overlap: {len(found.evaluation)} of {len(evaluation)} "
        f"evaluation samples ({evaluation.description}) are also calibrated on "
        f"({calibration.description}), the first is sample {first}"
        f"{_excerpt(evaluation, first, tokenizer)}; what a search has seen cannot measure it, so "
        "give other --data or --evaluation-data"
    )


def _excerpt(samples: Samples, row: int, tokenizer: Any) -> str:
    if tokenizer is None or _content(samples.inputs) != "input_ids":
        return ""
    text = str(tokenizer.decode(samples.inputs["input_ids"][row], skip_special_tokens=True))
    return f" ('{' '.join(text.split())[:60]}')"


def _content(inputs: Mapping[str, Any]) -> str:
    return next((name for name in _CONTENT if name in inputs), next(iter(inputs)))


def _keys(samples: Samples, span: int) -> list[list[Any]]:
    """What to look up of every sample: hashes of stretches, or a tuple of a whole short text."""
    import hashlib

    name = _content(samples.inputs)
    values = samples.inputs[name]
    if name != "input_ids":
        return [[hashlib.sha256(row.contiguous().numpy().tobytes()).digest()] for row in values]
    ids: Any = values.numpy()
    labels = samples.labels
    if labels is not None and labels.shape == values.shape and not labels.is_floating_point():
        ids = labels.where(labels >= 0, values).numpy()  # tokens a task hides are in its labels
    mask = samples.inputs.get("attention_mask")
    if mask is not None:
        ids = [row[keep] for row, keep in zip(ids, mask.bool().numpy(), strict=True)]
    return [
        _stretches(row[None], span)[0].tolist() if len(row) >= span else [tuple(row.tolist())]
        for row in ids
    ]


def _stretches(ids: NDArray[Any], span: int) -> NDArray[np.uint64]:
    """A 64-bit hash of every stretch of `span` tokens in every window, (N, W - span + 1).

    The hash is a dot product with fixed random odd numbers modulo 2**64. A false hit needs two
    different stretches with equal hashes; among a million stretches that has odds near 1e-7.
    """
    import numpy as np

    weights = np.random.default_rng(0).integers(0, 2**63, size=span, dtype=np.uint64) * 2 + 1
    windows = np.lib.stride_tricks.sliding_window_view(ids.astype(np.uint64) + 1, span, axis=1)
    hashed: NDArray[np.uint64] = windows @ weights.astype(np.uint64)
    return hashed
