"""prunepath: structured pruning of transformers. Search once, ship every size.

Importing this package imports neither torch nor transformers: every public name lives in the
table below and is loaded when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public name -> module that defines it. The one list of what users may import from `prunepath`.
_PUBLIC: dict[str, str] = {
    "Budget": "prunepath.allocation.budget",
    "Family": "prunepath.structure.families",
    "Kind": "prunepath.structure.families",
    "Merging": "prunepath.structure.families",
    "Place": "prunepath.structure.families",
    "PrunepathError": "prunepath.errors",
    "Recipe": "prunepath.recipes",
    "SolutionPath": "prunepath.path",
    "Stack": "prunepath.structure.families",
    "compare": "prunepath.api.compare",
    "curve": "prunepath.api.curve",
    "evaluate": "prunepath.api.evaluate",
    "extract": "prunepath.api.extract",
    "inspect": "prunepath.api.inspect",
    "load": "prunepath.checkpoint.load",
    "register_family": "prunepath.structure.families",
    "rescore": "prunepath.api.rescore",
    "search": "prunepath.api.search",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'prunepath' has no attribute '{name}'")
    value = getattr(importlib.import_module(_PUBLIC[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


def _meet_transformers() -> None:
    """Cut models load through the Auto classes once this package is imported."""
    from prunepath.checkpoint.hook import register_when_imported

    register_when_imported()


_meet_transformers()
