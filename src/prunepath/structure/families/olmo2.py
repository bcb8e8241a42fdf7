"""OLMo 2: norms behind every sub-layer, and over all heads of queries and keys together."""

from __future__ import annotations

from prunepath.structure.families.llama import GATED_FFN
from prunepath.structure.families.parts import WHOLE_NORM, rotary_place
from prunepath.structure.families.table import Family, Stack

__all__ = ["OLMO2"]

REFUSED = ("qk_coordinate", "query_head", "kv_group")

OLMO2 = Family(
    name="olmo2",
    model_types=("olmo2",),
    stacks=(
        Stack(
            layers="layers",
            config_sizes={"intermediate_size": ("ffn",)},
            additive=False,
            places=(rotary_place(refuse={"q_norm": (REFUSED, WHOLE_NORM)}), GATED_FFN),
        ),
    ),
)
