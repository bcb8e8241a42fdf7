"""A listener for tests: hears every note, and is Ctrl-C at one of the items that are tracked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

__all__ = ["Interrupting"]


class Interrupting:
    """Presses Ctrl-C before the n-th item.

    Args:
        at: items that pass before; None: all do.
        label: which loop's items count; empty: those of all loops together.
    """

    def __init__(self, at: int | None = None, label: str = "") -> None:
        self.at, self.label = at, label
        self.notes: list[str] = []
        self.count = 0

    def track(self, items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
        for item in items:
            if self.label in ("", label):
                if self.count == self.at:
                    raise KeyboardInterrupt
                self.count += 1
            yield item

    def note(self, message: str) -> None:
        self.notes.append(message)
