"""ALBERT: a few layers that run many times each.

A group of layers is one set of weights, and so one set of units, whatever the number of layers the
config states; how often its rows pass is measured.
"""

from __future__ import annotations

from prunepath.structure.families.parts import plain_attention, plain_ffn
from prunepath.structure.families.table import Family, Stack

__all__ = ["ALBERT"]

ALBERT = Family(
    name="albert",
    model_types=("albert",),
    stacks=(
        Stack(
            layers="encoder.albert_layer_groups.*.albert_layers",
            config_sizes={"intermediate_size": ("ffn",)},
            additive=False,
            places=(
                plain_attention(
                    "query",
                    "key",
                    "value",
                    "dense",
                    heads=".num_attention_heads",
                    attributes={"num_attention_heads": "head", "all_head_size": "head value"},
                ),
                plain_ffn("", "ffn", "ffn_output", name="ffn"),
            ),
        ),
    ),
)
