"""GPT-J: attention and FFN side by side; the first coordinates of every head are rotated in
neighbouring pairs."""

from __future__ import annotations

from prunepath.structure.families.parts import head_kinds, plain_ffn
from prunepath.structure.families.table import Family, Place, Stack

__all__ = ["GPTJ"]

GPTJ = Family(
    name="gptj",
    model_types=("gptj",),
    stacks=(
        Stack(
            layers="h",
            config_sizes={"n_inner": ("ffn",)},
            places=(
                Place(
                    name="attn",
                    module="attn",
                    sizes={
                        "head": ".num_attention_heads",
                        "value": ".head_dim",
                        "half": "2",  # the members of a rotary pair: 2 i and 2 i + 1
                        "pair": ".rotary_dim // half",
                        "rest": "value - half * pair",  # not rotated
                    },
                    linears={
                        "q_proj": ("head: pair half | rest", ""),
                        "k_proj": ("head: pair half | rest", ""),
                        "v_proj": ("head value", ""),
                        "out_proj": ("", "head value"),
                    },
                    scores="head pair half | head rest",
                    context="head value",
                    keys="k_proj",
                    cache=("head pair half", "head rest", "head value"),
                    native=("head",),
                    attributes={"num_attention_heads": "head"},
                    kinds=head_kinds("q_proj.output#0", "out_proj", rest="q_proj.output#1"),
                ),
                plain_ffn("mlp", "fc_in", "fc_out"),
            ),
        ),
    ),
)
