"""Progress on a terminal; nothing on anything else.

Library code knows only the protocol in `prunepath.progress`. This is the listener the command line
passes in: bars on stderr that vanish when the work is done. In a log file or a pipe no bar is
drawn, and notes are plain lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars

__all__ = ["RichProgress"]

T = TypeVar("T")


class RichProgress:
    """Bars and notes on a rich console. Loops may be nested; each has its own bar.

    Args:
        console: where to draw; stderr if None, so that stdout stays clean for results.
    """

    def __init__(self, console: Console | None = None) -> None:
        if console is None:
            from rich.console import Console

            console = Console(stderr=True)
        self._console = console
        self._bars: Bars | None = None
        self._depth = 0

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        """Yield the items and advance a bar; the bar goes when the loop ends, however it ends."""
        if not self._console.is_terminal:
            yield from items
            return
        if total is None and isinstance(items, Sized):
            total = len(items)
        bars = self._open()
        bar = bars.add_task(label, total=total)
        try:
            for item in items:
                yield item
                bars.advance(bar)
        finally:
            bars.remove_task(bar)
            self._close()

    def note(self, message: str) -> None:
        """Print one sentence above the bars."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    def _open(self) -> Bars:
        # rich allows one live display at a time, so nested loops share it.
        if self._bars is None:
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bars.start()
        self._depth += 1
        return self._bars

    def _close(self) -> None:
        self._depth -= 1
        if self._depth == 0 and self._bars is not None:
            self._bars.stop()
            self._bars = None
