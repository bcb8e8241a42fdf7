"""MPNet: the layers of BERT, with one relative position bias that all layers share."""

from __future__ import annotations

from prunepath.structure.families.bert import FFN
from prunepath.structure.families.parts import plain_attention
from prunepath.structure.families.table import Family, Stack

__all__ = ["MPNET"]

MPNET = Family(
    name="mpnet",
    model_types=("mpnet",),
    stacks=(
        Stack(
            layers="encoder.layer",
            config_sizes={"intermediate_size": ("ffn",)},
            additive=False,
            places=(
                # Heads are not native: the bias has every head of every layer, whatever goes.
                plain_attention(
                    "attn.q",
                    "attn.k",
                    "attn.v",
                    "attn.o",
                    heads=".attn.num_attention_heads",
                    native=False,
                ),
                FFN,
            ),
        ),
    ),
)
