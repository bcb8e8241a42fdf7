"""Llama and relatives: pre-norm decoders with rotary grouped-query attention and a gated FFN."""

from __future__ import annotations

from prunepath.structure.families.parts import HEAD_NORM, ROTARY_SIZES, rotary_place
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

EVERY_ATTENTION_KIND = ("qk_coordinate", "vo_coordinate", "query_head", "kv_group")

LLAMA = Family(
    name="llama",
    model_types=("llama", "mistral", "qwen2", "gemma"),
    stacks=(
        Stack(
            layers="layers",
            config_sizes=ROTARY_SIZES,
            places=(
                # Models of these types have no norms here; where one was put in, the compact
                # module would leave it out.
                rotary_place(
                    runtime="rotary_attention",
                    refuse={
                        "q_norm": (EVERY_ATTENTION_KIND, HEAD_NORM),
                        "k_norm": (EVERY_ATTENTION_KIND, HEAD_NORM),
                    },
                ),
                GATED_FFN,
            ),
        ),
    ),
)
