"""Drawn images, folders of them, and tiny random vision models put together as opened models."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

SIDE = 16
SETTINGS: dict[str, Any] = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": SIDE, "width": SIDE},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.25, 0.5, 0.5],
}
TOWER: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def picture(seed: int = 0, width: int = 20, height: int = 18, mode: str = "RGB") -> Image.Image:
    """A random image."""
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def draw_folders(root: Path, classes: dict[str, int]) -> Path:
    """Class folders with so many images each, `a.png`, `b.png`, ..."""
    for number, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            picture(100 * number + index).save(root / name / f"{chr(97 + index)}.png")
    return root


def seeded(cls: Any, config: Any) -> Any:
    """A model with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return cls(config).eval()


def opened(model: Any, settings: Any = SETTINGS, tokenizer: Any = None) -> Any:
    """What `open_model` gives."""
    return SimpleNamespace(
        model=model,
        tokenizer=tokenizer,
        processor=None,
        image_settings=settings,
        model_id="tiny model",
    )


def vit(labels: Iterable[str] = ("cat", "dog", "bird"), **changes: Any) -> Any:
    """A ViT with a classifier over named classes."""
    from transformers import ViTConfig, ViTForImageClassification

    names = dict(enumerate(labels))
    config = ViTConfig(**TOWER, image_size=SIDE, patch_size=8, id2label=names, **changes)
    return seeded(ViTForImageClassification, config)
