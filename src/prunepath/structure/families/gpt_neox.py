"""GPT-NeoX and Pythia: one projection for queries, keys and values, head by head; part of every
head is rotated."""

from __future__ import annotations

from prunepath.structure.families.parts import head_kinds, plain_ffn
from prunepath.structure.families.table import Family, Place, Stack

__all__ = ["GPT_NEOX"]

GPT_NEOX = Family(
    name="gpt_neox",
    model_types=("gpt_neox",),
    stacks=(
        Stack(
            layers="layers",
            config_sizes={"intermediate_size": ("ffn",)},
            places=(
                Place(
                    name="attention",
                    module="attention",
                    sizes={
                        "value": ".head_size",
                        "head": "dense.in // value",
                        "half": "2",  # the members of a rotary pair: i and i + rotated / 2
                        "pair": ".rotary_ndims // half",
                        "rest": "value - half * pair",  # not rotated
                    },
                    linears={
                        "query_key_value": (
                            "head: half pair | rest | half pair | rest | value",
                            "",
                        ),
                        "dense": ("", "head value"),
                    },
                    scores="head half pair | head rest",
                    context="head value",
                    cache=("head half pair", "head rest", "head value"),
                    native=("head",),  # the code counts heads by what is left of the projection
                    kinds=head_kinds(
                        "query_key_value.output#0", "dense", rest="query_key_value.output#1"
                    ),
                ),
                plain_ffn("mlp", "dense_h_to_4h", "dense_4h_to_h"),
            ),
        ),
    ),
)
