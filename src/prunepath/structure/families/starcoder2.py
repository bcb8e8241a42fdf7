"""StarCoder2: the attention of Llama with biases and a sliding window, and a plain FFN."""

from __future__ import annotations

from prunepath.structure.families.parts import ROTARY_SIZES, plain_ffn, rotary_place
from prunepath.structure.families.table import Family, Stack

__all__ = ["STARCODER2"]

STARCODER2 = Family(
    name="starcoder2",
    model_types=("starcoder2",),
    stacks=(
        Stack(
            layers="layers",
            config_sizes=ROTARY_SIZES,
            places=(
                rotary_place(runtime="rotary_attention"),
                plain_ffn("mlp", "c_fc", "c_proj"),
            ),
        ),
    ),
)
