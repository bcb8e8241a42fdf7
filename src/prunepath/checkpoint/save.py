"""Write a cut model so that it loads: safetensors, config, tokenizer, generation config, card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prunepath.checkpoint.auto import take_pruned_class_

__all__ = ["is_stock", "save_model"]


def is_stock(model: Any) -> bool:
    """Whether stock transformers can load the model, without prunepath."""
    return not getattr(model.config, "prunepath", None)


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write everything but the card into a folder.

    Args:
        model: the cut model; it takes the class it will have when it is loaded.
        tokenizer: saved beside it with its chat template; None: not saved.
        folder: an existing folder.
    """
    from transformers.utils import logging

    take_pruned_class_(model)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model.save_pretrained(folder)
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
