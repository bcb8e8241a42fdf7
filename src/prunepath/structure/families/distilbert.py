"""DistilBERT: BERT with flatter names."""

from __future__ import annotations

from prunepath.structure.families.parts import plain_attention, plain_ffn
from prunepath.structure.families.table import Family, Stack

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
                plain_attention(
                    "q_lin",
                    "k_lin",
                    "v_lin",
                    "out_lin",
                    heads=".n_heads",
                    attributes={"n_heads": "head"},
                ),
                plain_ffn("ffn", "lin1", "lin2", name="ffn"),
            ),
        ),
    ),
)
