"""Models of images and texts: two towers, with cross-attention or without."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.zoo.build import IMAGE, VOCAB_SIZE, Case, images, make, text

KINDS = ("qk_coordinate", "vo_coordinate", "head", "ffn_channel")
TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "projection_dim": 16,
}
VISION: dict[str, Any] = {
    **TOWER,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_attention_heads": 2,
    "image_size": IMAGE,
    "patch_size": 4,
}
TEXT: dict[str, Any] = {
    **TOWER,
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "sep_token_id": 3,
}


def pairs(rows: int, tokens: int) -> dict[str, Tensor]:
    """Texts and as many images."""
    return {**text(rows, tokens), **images(rows)}


def packed_pairs(rows: int, tokens: int) -> dict[str, Tensor]:
    """Texts and images as lists of patches; the second image of two is smaller."""
    generator = torch.Generator().manual_seed(rows)
    shapes = torch.tensor([[4, 4] if row % 2 == 0 else [2, 4] for row in range(rows)])
    real = torch.arange(16)[None] < shapes.prod(-1)[:, None]
    return {
        **text(rows, tokens, mask=False),
        "pixel_values": torch.randn(rows, 16, 3 * 4 * 4, generator=generator),
        "pixel_attention_mask": real.long(),
        "spatial_shapes": shapes,
    }


def questions(rows: int, tokens: int) -> dict[str, Tensor]:
    """Pairs, and answers: nothing but the loss depends on the texts."""
    return {**pairs(rows, tokens), "labels": text(rows, 4, mask=False)["input_ids"]}


def towers(family: str, architecture: str, *, width: int = 24, **changes: Any) -> Any:
    """A model of both towers; `width` is that of the vision tower."""
    import transformers

    config = getattr(transformers, f"{family}Config")(
        text_config={**TEXT, "encoder_hidden_size": width, "projection_size": width},
        vision_config={**VISION, "hidden_size": width},
        projection_dim=16,
        **changes,
    )
    return make(architecture, config)


def tower(family: str, architecture: str, **shape: Any) -> Any:
    """One tower on its own."""
    import transformers

    return make(architecture, getattr(transformers, f"{family}Config")(**shape))


clip, siglip, siglip2 = (partial(towers, name) for name in ("CLIP", "Siglip", "Siglip2"))
blip = partial(towers, "Blip", image_text_hidden_size=16)

CASES = {
    "clip": Case(partial(clip, "CLIPModel"), pairs, KINDS),
    "clip-classifier": Case(
        partial(clip, "CLIPForImageClassification", num_labels=3), images, KINDS
    ),
    "clip-text": Case(
        partial(tower, "CLIPText", "CLIPTextModelWithProjection", **TEXT), text, KINDS
    ),
    "clip-vision": Case(
        partial(tower, "CLIPVision", "CLIPVisionModelWithProjection", **VISION), images, KINDS
    ),
    "siglip": Case(partial(siglip, "SiglipModel"), pairs, KINDS),
    "siglip-classifier": Case(
        partial(siglip, "SiglipForImageClassification", num_labels=3), images, KINDS
    ),
    "siglip2": Case(partial(siglip2, "Siglip2Model"), packed_pairs, KINDS),
    "blip": Case(partial(blip, "BlipModel"), pairs, KINDS),
    "blip-retrieval": Case(partial(blip, "BlipForImageTextRetrieval"), pairs, KINDS),
    "blip-questions": Case(partial(blip, "BlipForQuestionAnswering", width=32), questions, KINDS),
    "blip-captions": Case(
        partial(blip, "BlipForConditionalGeneration"), pairs, KINDS, generates=True
    ),
}
