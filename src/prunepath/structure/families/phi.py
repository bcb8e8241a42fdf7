"""Phi-1 and Phi-2: attention and FFN side by side; part of every head is rotated."""

from __future__ import annotations

from prunepath.structure.families.parts import HEAD_NORM, grouped_kinds, plain_ffn
from prunepath.structure.families.table import Family, Place, Stack

__all__ = ["PHI"]

PHI = Family(
    name="phi",
    model_types=("phi",),
    stacks=(
        Stack(
            layers="layers",
            config_sizes={"intermediate_size": ("ffn",)},
            places=(
                Place(
                    name="self_attn",
                    module="self_attn",
                    sizes={
                        "value": ".head_dim",
                        "kv": "v_proj.out // value",
                        "rep": ".num_key_value_groups",
                        "half": "2",  # the members of a rotary pair: i and i + rotated / 2
                        "pair": ".rotary_ndims // half",
                        "rest": "value - half * pair",  # not rotated
                    },
                    linears={
                        "q_proj": ("kv rep: half pair | rest", ""),
                        "k_proj": ("kv: half pair | rest", ""),
                        "v_proj": ("kv value", ""),
                        "dense": ("", "kv rep value"),
                    },
                    scores="kv rep half pair | kv rep rest",
                    context="kv rep value",
                    keys="k_proj",
                    cache=("kv half pair", "kv rest", "kv value"),
                    native=("kv", "rep"),
                    attributes={"num_key_value_groups": "rep"},
                    refuse={"q_layernorm": (("qk_coordinate", "qk_plain"), HEAD_NORM)},
                    kinds=grouped_kinds("q_proj.output#0", "dense", rest="q_proj.output#1"),
                ),
                plain_ffn("mlp", "fc1", "fc2"),
            ),
        ),
    ),
)
