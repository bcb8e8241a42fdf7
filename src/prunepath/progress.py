"""How library code reports progress without knowing who listens.

Long loops take `progress: Progress | None` and wrap their iterable in `track`; with `None` that
costs nothing and shows nothing. The implementation for terminals is `prunepath.report.progress`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

__all__ = ["Progress", "note", "track"]

T = TypeVar("T")


class Progress(Protocol):
    """What a listener offers: a bar around a loop, and a sentence in passing."""

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Yield the items and show how far the loop has come."""
        ...

    def note(self, message: str) -> None:
        """Tell the user one sentence."""
        ...


def track(
    progress: Progress | None, items: Iterable[T], label: str, total: int | None = None
) -> Iterator[T]:
    """Yield the items, through the listener if there is one.

    Args:
        progress: the listener, or None for silence.
        items: what the loop runs over.
        label: what the loop does, in two or three words.
        total: number of items, where `items` has no length.

    Returns:
        An iterator over the same items in the same order.

    Example:
        >>> list(track(None, [1, 2], "counting"))
        [1, 2]
    """
    return iter(items) if progress is None else progress.track(items, label, total)


def note(progress: Progress | None, message: str) -> None:
    """Tell the listener one sentence, if there is one.

    Args:
        progress: the listener, or None for silence.
        message: one sentence.
    """
    if progress is not None:
        progress.note(message)
