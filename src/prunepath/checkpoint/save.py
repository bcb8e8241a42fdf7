"""Write a cut model so that it loads: safetensors, config, and all that lies beside a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prunepath.checkpoint.auto import take_pruned_class_
from prunepath.surgery.experts import fuse_experts_
from prunepath.tasks.infer import auto_classes_listing

__all__ = ["is_stock", "loading_class", "save_model"]


def is_stock(model: Any) -> bool:
    """Whether stock transformers can load the model, without prunepath."""
    return not getattr(model.config, "prunepath", None)


def loading_class(model: Any, preferred: Sequence[str] = ()) -> str:
    """The class of transformers whose `from_pretrained` gives a saved model back.

    Args:
        model: the model, of the class it is saved with.
        preferred: Auto classes to choose first, where they do.

    Returns:
        An Auto class; for a stock model that none knows its own class; for another one an empty
        string: only `prunepath.load` loads it.
    """
    import transformers

    listing = auto_classes_listing(type(model).__name__.removeprefix("Pruned"))
    chosen = [name for name in preferred if name in listing]
    specific = [name for name in listing if name not in ("AutoModel", "AutoModelForPreTraining")]
    for name in (*chosen, *specific, *listing):
        auto_class: Any = getattr(transformers, name, None)
        mapping = {} if auto_class is None else auto_class._model_mapping
        known = mapping.get(type(model.config), None)  # its `get` has no default
        if type(model) in (known if isinstance(known, tuple | list) else (known,)):
            return name
    return type(model).__name__ if is_stock(model) else ""


def save_model(
    model: Any,
    tokenizer: Any,
    folder: Path,
    *,
    processor: Any = None,
    image_settings: Mapping[str, Any] | None = None,
) -> None:
    """Write everything but the card into a folder.

    Args:
        model: the cut model; it takes the class it will have when it is loaded.
        tokenizer: saved beside it with its chat template; None: not saved.
        folder: an existing folder.
        processor: feature extractor of a model that listens; None: not saved.
        image_settings: becomes `preprocessor_config.json`; None: not saved.
    """
    from transformers.utils import logging

    fuse_experts_(model)
    take_pruned_class_(model)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model.save_pretrained(folder)
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
    if image_settings is not None:
        text = json.dumps(dict(image_settings), indent=2, sort_keys=True)
        (folder / "preprocessor_config.json").write_text(f"{text}\n", encoding="utf-8")
    for companion in (processor, tokenizer):
        if companion is not None:
            companion.save_pretrained(folder)
