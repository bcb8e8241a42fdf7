"""Phi-3 and Phi-4: grouped queries, one projection for queries, keys and values, one for both
halves of the gated FFN."""

from __future__ import annotations

from prunepath.structure.families.parts import ROTARY_SIZES, grouped_kinds
from prunepath.structure.families.table import Family, Kind, Place, Stack

__all__ = ["PHI3"]

PHI3 = Family(
    name="phi3",
    model_types=("phi3",),
    stacks=(
        Stack(
            layers="layers",
            config_sizes=ROTARY_SIZES,
            places=(
                Place(
                    name="self_attn",
                    module="self_attn",
                    sizes={
                        "kv": ".num_key_value_heads",
                        "rep": ".num_key_value_groups",
                        "value": ".head_dim",
                        "half": "2",  # the members of a rotary pair: i and i + rotated / 2
                        "pair": "value * config.rope_parameters.partial_rotary_factor // half",
                        "rest": "value - half * pair",  # not rotated
                    },
                    linears={
                        "qkv_proj": (
                            "kv rep: half pair | rest ; kv: half pair | rest ; kv value",
                            "",
                        ),
                        "o_proj": ("", "kv rep value"),
                    },
                    scores="kv rep half pair | kv rep rest",
                    context="kv rep value",
                    cache=("kv half pair", "kv rest", "kv value"),
                    native=("kv", "rep"),
                    attributes={
                        "num_key_value_heads": "kv",
                        "num_key_value_groups": "rep",
                        "config.num_attention_heads": "kv rep",  # where the queries end
                    },
                    kinds=grouped_kinds("qkv_proj.output#0", "o_proj", rest="qkv_proj.output#1"),
                ),
                Place(
                    name="mlp",
                    module="mlp",
                    sizes={"ffn": "down_proj.in"},
                    linears={"gate_up_proj": ("2 ffn", ""), "down_proj": ("", "ffn")},
                    native=("ffn",),
                    kinds=(
                        Kind(
                            name="ffn_channel",
                            unit="ffn",
                            gate="down_proj.input",
                            consumer="down_proj",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
