"""Bars on a terminal, silence elsewhere, and the loop's items untouched in both."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from prunepath.progress import Progress, note, track
from prunepath.report import RichProgress


def make(terminal: bool) -> tuple[RichProgress, io.StringIO]:
    text = io.StringIO()
    return RichProgress(Console(file=text, force_terminal=terminal, width=80)), text


def test_no_bar_without_a_terminal() -> None:
    progress, text = make(terminal=False)
    assert list(progress.track(range(3), "search")) == [0, 1, 2]
    assert text.getvalue() == ""
    progress.note("refit [off] kept")
    assert text.getvalue() == "refit [off] kept\n"


def test_bar_on_a_terminal_goes_away() -> None:
    progress, text = make(terminal=True)
    assert list(progress.track(iter("ab"), "search", total=2)) == ["a", "b"]
    assert "search" in text.getvalue()
    assert progress._bars is None


def test_nested_loops_share_the_display() -> None:
    progress, _ = make(terminal=True)
    pairs = [(a, b) for a in progress.track("xy", "outer") for b in progress.track("pq", "inner")]
    assert pairs == [("x", "p"), ("x", "q"), ("y", "p"), ("y", "q")]
    assert progress._bars is None


def test_interrupted_loop_closes_the_display() -> None:
    progress, _ = make(terminal=True)
    with pytest.raises(KeyboardInterrupt):
        for _item in progress.track(range(3), "search"):
            raise KeyboardInterrupt
    # The generator is closed when the frame that held it goes.
    import gc

    gc.collect()
    assert list(progress.track(range(2), "again")) == [0, 1]


def test_library_side() -> None:
    progress, text = make(terminal=False)
    listener: Progress = progress
    assert list(track(listener, [1, 2], "search")) == [1, 2]
    assert list(track(None, (item for item in [1, 2]), "search")) == [1, 2]
    note(None, "unheard")
    note(listener, "heard")
    assert text.getvalue() == "heard\n"
