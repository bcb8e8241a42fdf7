"""Mask2Former: deformable attention in the pixel decoder, masked attention over object queries.

The backbone is found by its own table. Masked cross-attention is one opaque module of torch and
stays, as do the mask heads.
"""

from __future__ import annotations

from prunepath.structure.families.parts import attention_kinds
from prunepath.structure.families.table import Family, Place, Stack
from prunepath.structure.families.vision import attention, mlp

__all__ = ["MASK2FORMER"]

DEFORMABLE = Place(
    name="deformable_attention",
    module="self_attn",
    sizes={
        "head": ".n_heads",
        "value": "value_proj.out // head",
        "offset": "sampling_offsets.out // head",
        "weight": "attention_weights.out // head",
    },
    linears={
        "value_proj": ("head value", ""),
        "sampling_offsets": ("head offset", ""),
        "attention_weights": ("head weight", ""),
        "output_proj": ("", "head value"),
    },
    native=("head",),
    attributes={"n_heads": "head", "d_model": "head value"},
    kinds=tuple(
        kind for kind in attention_kinds("", "output_proj") if kind.name != "qk_coordinate"
    ),
)

MASK2FORMER = Family(
    name="mask2former",
    model_types=("mask2former",),
    stacks=(
        Stack(
            layers="pixel_level_module.decoder.encoder.layers",
            places=(DEFORMABLE, mlp("")),
            config_sizes={"encoder_feedforward_dim": ("ffn",)},
            additive=False,
        ),
        Stack(
            layers="transformer_module.decoder.layers",
            places=(attention("self_attn", output="out_proj", native=False), mlp("")),
            config_sizes={"dim_feedforward": ("ffn",)},
            additive=False,
        ),
    ),
)
