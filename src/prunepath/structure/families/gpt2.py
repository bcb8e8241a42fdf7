"""GPT-2: pre-norm decoders with learned positions and fused projections stored transposed."""

from __future__ import annotations

from prunepath.structure.families.parts import attention_kinds, plain_ffn
from prunepath.structure.families.table import Family, Place, Stack

__all__ = ["GPT2"]

SIZES = {"head": ".num_heads", "qk": ".head_dim", "value": ".head_dim"}
# The code splits the fused projection at `split_size` and counts heads by what is left.
ATTRIBUTES = {"num_heads": "head", "split_size": "head qk"}

SELF_ATTENTION = Place(
    name="attn",
    module="attn",
    sizes=SIZES,
    linears={"c_attn": ("head qk | head qk | head value", ""), "c_proj": ("", "head value")},
    scores="head qk",
    context="head value",
    cache=("head qk", "head value"),
    native=("head",),
    attributes=ATTRIBUTES,
    kinds=attention_kinds("c_attn.output#0", "c_proj"),
)

CROSS_ATTENTION = Place(
    name="crossattention",
    module="crossattention",
    prefix="cross",
    optional=True,
    sizes=SIZES,
    linears={
        "q_attn": ("head qk", ""),
        "c_attn": ("head qk | head value", ""),
        "c_proj": ("", "head value"),
    },
    scores="head qk",
    context="head value",
    keys="c_attn",
    native=("head",),
    attributes=ATTRIBUTES,
    kinds=attention_kinds("q_attn.output", "c_proj"),
)

GPT2 = Family(
    name="gpt2",
    model_types=("gpt2",),
    stacks=(
        Stack(
            layers="h",
            config_sizes={"n_inner": ("ffn",)},
            places=(SELF_ATTENTION, CROSS_ATTENTION, plain_ffn("mlp", "c_fc", "c_proj")),
        ),
    ),
)
