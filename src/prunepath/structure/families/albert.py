"""ALBERT: a few layers that run many times each.

A group of layers is one set of weights, and so one set of units, whatever the number of layers the
config states; how often its rows pass is measured.
"""

from __future__ import annotations

from prunepath.structure.families.bert import attention_kinds
from prunepath.structure.families.table import Family, Kind, Place, Stack

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
                Place(
                    name="attention",
                    module="attention",
                    sizes={
                        "head": ".num_attention_heads",
                        "qk": "query.out // head",
                        "value": "value.out // head",
                    },
                    linears={
                        "query": ("head qk", ""),
                        "key": ("head qk", ""),
                        "value": ("head value", ""),
                        "dense": ("", "head value"),
                    },
                    scores="head qk",
                    context="head value",
                    keys="key",
                    native=("head",),
                    attributes={"num_attention_heads": "head", "all_head_size": "head value"},
                    kinds=attention_kinds("query.output", "dense"),
                ),
                Place(
                    name="ffn",
                    sizes={"ffn": "ffn_output.in"},
                    linears={"ffn": ("ffn", ""), "ffn_output": ("", "ffn")},
                    native=("ffn",),
                    kinds=(
                        Kind(
                            name="ffn_channel",
                            unit="ffn",
                            gate="ffn_output.input",
                            consumer="ffn_output",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
