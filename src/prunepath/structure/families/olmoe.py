"""OLMoE: experts, and a norm over all heads of queries and keys together."""

from __future__ import annotations

from prunepath.structure.families.moe import moe_family
from prunepath.structure.families.parts import WHOLE_NORM, rotary_place

__all__ = ["OLMOE"]

OLMOE = moe_family(
    "olmoe",
    rotary_place(refuse={"q_norm": (("qk_coordinate", "query_head", "kv_group"), WHOLE_NORM)}),
    channels="intermediate_size",
    sizes={},
)
