"""Llama and relatives: pre-norm decoders with rotary grouped-query attention and a gated FFN."""

from __future__ import annotations

from prunepath.structure.families.table import Family, Kind, Place

__all__ = ["LLAMA"]

LLAMA = Family(
    name="llama",
    model_types=("llama", "mistral", "qwen2"),
    layers="model.layers",
    sizes={
        "kv": "num_key_value_heads",
        "rep": "num_attention_heads // num_key_value_heads",
        "half": "2",  # the two members of a rotary pair: i and i + head_dim / 2
        "pair": "head_dim // 2",
        "value": "head_dim",
        "ffn": "intermediate_size",
    },
    places=(
        Place(
            module="self_attn",
            linears={
                "q_proj": ("kv rep half pair", ""),
                "k_proj": ("kv half pair", ""),
                "v_proj": ("kv value", ""),
                "o_proj": ("", "kv rep value"),
            },
            scores="kv rep half pair",
            context="kv rep value",
            cache=("kv half pair", "kv value"),
            native=("kv", "rep"),
            runtime="rotary_attention",
            attributes={"num_key_value_groups": "rep"},
        ),
        Place(
            module="mlp",
            linears={
                "gate_proj": ("ffn", ""),
                "up_proj": ("ffn", ""),
                "down_proj": ("", "ffn"),
            },
            native=("ffn",),
            attributes={"intermediate_size": "ffn"},
        ),
    ),
    kinds=(
        Kind(
            name="ffn_channel",
            place="mlp",
            unit="ffn",
            gate="down_proj.input",
            consumer="down_proj",
        ),
        Kind(
            name="qk_coordinate", place="self_attn", unit="kv pair", tied="kv", gate="q_proj.output"
        ),
        Kind(
            name="vo_coordinate",
            place="self_attn",
            unit="kv value",
            tied="kv",
            gate="o_proj.input",
            consumer="o_proj",
        ),
        Kind(
            name="query_head",
            place="self_attn",
            unit="kv rep",
            tied="kv",
            gate="o_proj.input",
            consumer="o_proj",
        ),
        Kind(name="kv_group", place="self_attn", unit="kv", gate="o_proj.input", consumer="o_proj"),
    ),
    config_sizes={
        "num_key_value_heads": ("kv",),
        "num_attention_heads": ("kv", "rep"),
        "intermediate_size": ("ffn",),
    },
    refuse={
        "q_norm": "a norm over the head dimension changes when coordinates go",
        "k_norm": "a norm over the head dimension changes when coordinates go",
    },
)
