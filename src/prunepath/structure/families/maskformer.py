"""MaskFormer: a post-norm decoder of object queries behind a backbone that has its own table.

Pixel decoder and mask heads stay.
"""

from __future__ import annotations

from prunepath.structure.families.table import Family, Stack
from prunepath.structure.families.vision import attention, mlp

__all__ = ["MASKFORMER"]

MASKFORMER = Family(
    name="maskformer",
    model_types=("maskformer",),
    stacks=(
        Stack(
            layers="transformer_module.decoder.layers",
            places=(attention("self_attn"), attention("encoder_attn", prefix="cross"), mlp()),
            additive=False,
        ),
    ),
)
