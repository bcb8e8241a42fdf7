"""Qwen3-MoE: experts, and a norm over the head dimension of queries and keys."""

from __future__ import annotations

from prunepath.structure.families.moe import DENSE_FFN, moe_family
from prunepath.structure.families.parts import HEAD_NORM, ROTARY_SIZES, rotary_place

__all__ = ["QWEN3_MOE"]

QWEN3_MOE = moe_family(
    "qwen3_moe",
    rotary_place(refuse={"q_norm": (("qk_coordinate",), HEAD_NORM)}),
    DENSE_FFN,
    channels="moe_intermediate_size",
    sizes=ROTARY_SIZES,
)
