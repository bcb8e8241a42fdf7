"""Data: text in any shape becomes windows of tokens; calibration never sees evaluation data.

Read `sources` (where text comes from), then `windows` (text -> tokens), then `overlap` (the proof
that two sets of windows share nothing).
"""

from __future__ import annotations

from prunepath.data.overlap import disjoint, shared_windows
from prunepath.data.sources import TextSource, clean_wikitext, open_texts
from prunepath.data.windows import TokenWindows, token_windows

__all__ = [
    "TextSource",
    "TokenWindows",
    "clean_wikitext",
    "disjoint",
    "open_texts",
    "shared_windows",
    "token_windows",
]
