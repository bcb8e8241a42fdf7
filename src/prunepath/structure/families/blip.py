"""BLIP: a pre-norm vision tower with one fused projection, and a post-norm text tower that attends
to the image. Self- and cross-attention are cut independently; keys and values of the latter read
rows of the vision tower's width.
"""

from __future__ import annotations

from dataclasses import replace

from prunepath.structure.families.bert import ATTENTION, FFN
from prunepath.structure.families.parts import attention_kinds
from prunepath.structure.families.table import Family, Place, Stack
from prunepath.structure.families.vision import mlp

__all__ = ["BLIP"]

VISION_ATTENTION = Place(
    name="attention",
    module="self_attn",
    sizes={
        "head": ".num_heads",
        "qk": "qkv.out // 3 // head",
        "value": "projection.in // head",
    },
    linears={
        "qkv": ("head qk | head qk | head value", ""),
        "projection": ("", "head value"),
    },
    scores="head qk",
    context="head value",
    kinds=attention_kinds("qkv.output#0", "projection"),
)

BLIP = Family(
    name="blip",
    model_types=("blip_vision_model", "blip_text_model"),
    stacks=(
        Stack(
            layers="encoder.layers",
            places=(VISION_ATTENTION, mlp()),
            config_sizes={"intermediate_size": ("ffn",)},
        ),
        Stack(
            layers="encoder.layer",
            places=(
                replace(ATTENTION, cache=("head qk", "head value")),
                replace(
                    ATTENTION,
                    name="crossattention",
                    module="crossattention",
                    prefix="cross",
                    optional=True,
                ),
                FFN,
            ),
            config_sizes={"intermediate_size": ("ffn",)},
            additive=False,
        ),
    ),
)
