"""Qwen2-MoE: experts, and a shared one that every token meets; some layers may be dense."""

from __future__ import annotations

from prunepath.structure.families.moe import DENSE_FFN, SHARED_EXPERT, moe_family
from prunepath.structure.families.parts import ROTARY_SIZES, rotary_place

__all__ = ["QWEN2_MOE"]

QWEN2_MOE = moe_family(
    "qwen2_moe",
    rotary_place(runtime="rotary_attention"),
    SHARED_EXPERT,
    DENSE_FFN,
    channels="moe_intermediate_size",
    sizes={**ROTARY_SIZES, "shared_expert_intermediate_size": ("shared",)},
    stays={"mlp.shared_expert_gate": "the gate of the shared expert has a single row"},
)
