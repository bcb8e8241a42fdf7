"""MPNet: the layers of BERT, with one relative position bias that all layers share."""

from __future__ import annotations

from prunepath.structure.families.bert import FFN, attention_kinds
from prunepath.structure.families.table import Family, Place, Stack

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
                Place(
                    name="attention",
                    module="attention",
                    sizes={
                        "head": ".attn.num_attention_heads",
                        "qk": "attn.q.out // head",
                        "value": "attn.v.out // head",
                    },
                    linears={
                        "attn.q": ("head qk", ""),
                        "attn.k": ("head qk", ""),
                        "attn.v": ("head value", ""),
                        "attn.o": ("", "head value"),
                    },
                    scores="head qk",
                    context="head value",
                    keys="attn.k",
                    # Heads are not native: the bias has every head of every layer, whatever goes.
                    kinds=attention_kinds("attn.q.output", "attn.o"),
                ),
                FFN,
            ),
        ),
    ),
)
