"""Qwen3: Llama with a norm over the head dimension of queries and keys."""

from __future__ import annotations

from prunepath.structure.families.llama import GATED_FFN
from prunepath.structure.families.parts import HEAD_NORM, ROTARY_SIZES, rotary_place
from prunepath.structure.families.table import Family, Stack

__all__ = ["QWEN3"]

QWEN3 = Family(
    name="qwen3",
    model_types=("qwen3",),
    stacks=(
        Stack(
            layers="layers",
            config_sizes=ROTARY_SIZES,
            places=(
                rotary_place(refuse={"q_norm": (("qk_coordinate",), HEAD_NORM)}),
                GATED_FFN,
            ),
        ),
    ),
)
