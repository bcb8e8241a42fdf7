"""DeBERTa: post-norm encoders whose logits add products with projected relative positions.

Version 2 and 3 project positions with the queries' and keys' own maps (`share_att_key`) or with
maps of their own; version 1 has one projection, interleaved head by head, with biases beside it.
"""

from __future__ import annotations

from prunepath.structure.families.bert import FFN
from prunepath.structure.families.parts import attention_kinds
from prunepath.structure.families.table import Family, Place, Stack

__all__ = ["DEBERTA"]

ATTENTION = Place(
    name="attention",
    module="attention",
    sizes={
        "head": ".self.num_attention_heads",
        "qk": "self.query_proj.out // head",
        "value": "self.value_proj.out // head",
    },
    linears={
        "self.query_proj": ("head qk", ""),
        "self.key_proj": ("head qk", ""),
        "self.value_proj": ("head value", ""),
        "self.pos_key_proj": ("head qk", ""),
        "self.pos_query_proj": ("head qk", ""),
        "output.dense": ("", "head value"),
    },
    sometimes=("self.pos_key_proj", "self.pos_query_proj"),
    scores="head qk",
    context="head value",
    keys="self.key_proj",
    native=("head",),
    attributes={"self.num_attention_heads": "head", "self.all_head_size": "head value"},
    kinds=attention_kinds("self.query_proj.output", "output.dense"),
    refuse={
        "self.pos_query_proj": (
            ("qk_coordinate",),
            "keys meet positions that a projection of their own asks with (share_att_key is off), "
            "so no single gate on the queries takes a coordinate out",
        ),
    },
    optional=True,
)

FUSED_ATTENTION = Place(
    name="attention",
    module="attention",
    sizes={
        "head": ".self.num_attention_heads",
        "qk": "self.in_proj.out // 3 // head",
        "value": "qk",
    },
    linears={
        "self.in_proj": ("head: qk | qk | value", ""),
        "self.pos_proj": ("head qk", ""),
        "self.pos_q_proj": ("head qk", ""),
        "output.dense": ("", "head value"),
    },
    sometimes=("self.pos_proj", "self.pos_q_proj"),
    tensors={"self.q_bias": ("head qk",), "self.v_bias": ("head value",)},
    scores="head qk",
    context="head value",
    native=("head",),
    attributes={"self.num_attention_heads": "head", "self.all_head_size": "head value"},
    kinds=attention_kinds("self.in_proj.output#0", "output.dense"),
    refuse={
        "self.q_bias": (
            ("qk_coordinate",),
            "queries get their bias behind the projection, so no gate on the projection takes a "
            "coordinate out of the logits",
        ),
        "self.head_logits_proj": (("head",), "heads are mixed with one another (talking_head)"),
    },
    optional=True,
)

DEBERTA = Family(
    name="deberta",
    model_types=("deberta-v2", "deberta"),
    stacks=(
        Stack(
            layers="encoder.layer",
            config_sizes={"intermediate_size": ("ffn",)},
            additive=False,
            places=(ATTENTION, FUSED_ATTENTION, FFN),
        ),
    ),
)
