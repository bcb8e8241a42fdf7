"""Llama and relatives: pre-norm decoders with rotary grouped-query attention and a gated FFN."""

from __future__ import annotations

from prunepath.structure.families.parts import ROTARY_SIZES, rotary_place
from prunepath.structure.families.table import Family, Kind, Place, Stack

__all__ = ["GATED_FFN", "LLAMA"]

GATED_FFN = Place(
    name="mlp",
    module="mlp",
    sizes={"ffn": "down_proj.in"},
    linears={
        "gate_proj": ("ffn", ""),
        "up_proj": ("ffn", ""),
        "down_proj": ("", "ffn"),
    },
    native=("ffn",),
    attributes={"intermediate_size": "ffn"},
    kinds=(Kind(name="ffn_channel", unit="ffn", gate="down_proj.input", consumer="down_proj"),),
)

LLAMA = Family(
    name="llama",
    model_types=("llama", "mistral", "qwen2", "gemma"),
    stacks=(
        Stack(
            layers="layers",
            config_sizes=ROTARY_SIZES,
            places=(
                rotary_place(runtime="rotary_attention"),
                GATED_FFN,
            ),
        ),
    ),
)
