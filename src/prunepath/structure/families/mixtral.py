"""Mixtral: Llama attention, and experts in every layer."""

from __future__ import annotations

from prunepath.structure.families.moe import moe_family
from prunepath.structure.families.parts import ROTARY_SIZES, rotary_place

__all__ = ["MIXTRAL"]

MIXTRAL = moe_family(
    "mixtral",
    rotary_place(runtime="rotary_attention"),
    channels="intermediate_size",
    experts="num_local_experts",
    sizes={name: sizes for name, sizes in ROTARY_SIZES.items() if name != "intermediate_size"},
)
