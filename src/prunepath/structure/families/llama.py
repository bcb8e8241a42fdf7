"""Llama and relatives: pre-norm decoders with rotary grouped-query attention and a gated FFN."""

from __future__ import annotations

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
    kinds=(
        Kind(name="ffn_channel", unit="ffn", gate="down_proj.input", consumer="down_proj"),
    ),
)

LLAMA = Family(
    name="llama",
    model_types=("llama", "mistral", "qwen2"),
    stacks=(
        Stack(
            layers="layers",
            config_sizes={
                "num_key_value_heads": ("kv",),
                "num_attention_heads": ("kv", "rep"),
                "intermediate_size": ("ffn",),
            },
            places=(
                Place(
                    name="self_attn",
                    module="self_attn",
                    sizes={
                        "kv": "config.num_key_value_heads",
                        "rep": "config.num_attention_heads // kv",
                        "half": "2",  # the members of a rotary pair: i and i + head_dim / 2
                        "pair": "k_proj.out // kv // half",
                        "value": "v_proj.out // kv",
                    },
                    linears={
                        "q_proj": ("kv rep half pair", ""),
                        "k_proj": ("kv half pair", ""),
                        "v_proj": ("kv value", ""),
                        "o_proj": ("", "kv rep value"),
                    },
                    scores="kv rep half pair",
                    context="kv rep value",
                    keys="k_proj",
                    cache=("kv half pair", "kv value"),
                    native=("kv", "rep"),
                    runtime="rotary_attention",
                    attributes={"num_key_value_groups": "rep"},
                    kinds=(
                        Kind(
                            name="qk_coordinate", unit="kv pair", tied="kv", gate="q_proj.output"
                        ),
                        Kind(
                            name="vo_coordinate",
                            unit="kv value",
                            tied="kv",
                            gate="o_proj.input",
                            consumer="o_proj",
                        ),
                        Kind(
                            name="query_head",
                            unit="kv rep",
                            tied="kv",
                            gate="o_proj.input",
                            consumer="o_proj",
                        ),
                        Kind(name="kv_group", unit="kv", gate="o_proj.input", consumer="o_proj"),
                    ),
                ),
                GATED_FFN,
            ),
        ),
    ),
)
