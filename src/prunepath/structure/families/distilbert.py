"""DistilBERT: BERT with flatter names."""

from __future__ import annotations

from prunepath.structure.families.bert import attention_kinds
from prunepath.structure.families.table import Family, Kind, Place, Stack

__all__ = ["DISTILBERT"]

DISTILBERT = Family(
    name="distilbert",
    model_types=("distilbert",),
    stacks=(
        Stack(
            layers="transformer.layer",
            config_sizes={"hidden_dim": ("ffn",)},
            additive=False,
            places=(
                Place(
                    name="attention",
                    module="attention",
                    sizes={
                        "head": ".n_heads",
                        "qk": "q_lin.out // head",
                        "value": "v_lin.out // head",
                    },
                    linears={
                        "q_lin": ("head qk", ""),
                        "k_lin": ("head qk", ""),
                        "v_lin": ("head value", ""),
                        "out_lin": ("", "head value"),
                    },
                    scores="head qk",
                    context="head value",
                    keys="k_lin",
                    native=("head",),
                    attributes={"n_heads": "head"},
                    kinds=attention_kinds("q_lin.output", "out_lin"),
                ),
                Place(
                    name="ffn",
                    module="ffn",
                    sizes={"ffn": "lin2.in"},
                    linears={"lin1": ("ffn", ""), "lin2": ("", "ffn")},
                    native=("ffn",),
                    kinds=(
                        Kind(name="ffn_channel", unit="ffn", gate="lin2.input", consumer="lin2"),
                    ),
                ),
            ),
        ),
    ),
)
