"""Load a cut model: what `AutoModelForCausalLM` does, with our classes registered first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["load"]


def load(source: str | Path, **options: Any) -> Any:
    """Load a model that `extract` wrote, of any layout.

    Args:
        source: its folder or Hub id.
        options: passed to `AutoModelForCausalLM.from_pretrained` (dtype, device_map, revision).

    Returns:
        The model, in evaluation mode.

    Raises:
        ModelError: it cannot be loaded.

    Example:
        >>> import prunepath
        >>> model = prunepath.load("small")  # doctest: +SKIP
    """
    from prunepath.checkpoint.source import open_model

    return open_model(source, tokenizer=False, **options).model
