"""Gemma 2 and 3: Llama with a second norm behind every sub-layer, windows in some layers, soft
caps (2) or a norm over the head dimension of queries and keys (3)."""

from __future__ import annotations

from prunepath.structure.families.llama import GATED_FFN
from prunepath.structure.families.parts import HEAD_NORM, ROTARY_SIZES, rotary_place
from prunepath.structure.families.table import Family, Stack

__all__ = ["GEMMA2"]

GEMMA2 = Family(
    name="gemma2",
    model_types=("gemma2", "gemma3_text"),
    stacks=(
        Stack(
            layers="layers",
            config_sizes=ROTARY_SIZES,
            additive=False,
            places=(
                rotary_place(refuse={"q_norm": (("qk_coordinate",), HEAD_NORM)}),
                GATED_FFN,
            ),
        ),
    ),
)
