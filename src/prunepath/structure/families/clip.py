"""CLIP, and the text tower of SigLIP: pre-norm towers, each found by the type of its own config.

Projections into the shared space stay.
"""

from __future__ import annotations

from prunepath.structure.families.table import Family, Stack
from prunepath.structure.families.vision import attention, merging, mlp

__all__ = ["CLIP", "LAYER", "PATCHES"]

LAYER = (attention("self_attn", output="out_proj"), mlp())
PATCHES = merging(
    ("layer_norm1", "self_attn"),
    ("layer_norm2", "mlp"),
    keys="self_attn.k_proj",
    patches="embeddings.patch_embedding",
)

CLIP = Family(
    name="clip",
    model_types=(
        "clip_vision_model",
        "clip_text_model",
        "siglip_text_model",
        "siglip2_text_model",
    ),
    stacks=(
        Stack(
            layers="encoder.layers",
            places=LAYER,
            config_sizes={"intermediate_size": ("ffn",)},
            merging=PATCHES,
        ),
    ),
)
