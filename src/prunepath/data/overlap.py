"""Whether calibration has seen evaluation data: looked up by content, not by file name.

A stretch of tokens of the evaluation windows is searched for at every position of the calibration
windows, so shifted copies are found as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunepath.errors import RequestError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from prunepath.data.windows import TokenWindows

__all__ = ["disjoint", "shared_windows"]


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
