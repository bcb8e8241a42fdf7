"""OPT: decoders with learned positions, separate projections and biases, pre-norm or post-norm."""

from __future__ import annotations

from prunepath.structure.families.bert import attention_kinds
from prunepath.structure.families.parts import plain_ffn
from prunepath.structure.families.table import Family, Place, Stack

__all__ = ["OPT"]

OPT = Family(
    name="opt",
    model_types=("opt",),
    stacks=(
        Stack(
            layers="decoder.layers",
            config_sizes={"ffn_dim": ("ffn",)},
            additive="do_layer_norm_before",
            places=(
                Place(
                    name="self_attn",
                    module="self_attn",
                    sizes={"head": ".num_heads", "qk": ".head_dim", "value": ".head_dim"},
                    linears={
                        "q_proj": ("head qk", ""),
                        "k_proj": ("head qk", ""),
                        "v_proj": ("head value", ""),
                        "out_proj": ("", "head value"),
                    },
                    scores="head qk",
                    context="head value",
                    keys="k_proj",
                    cache=("head qk", "head value"),
                    native=("head",),
                    attributes={"num_heads": "head"},
                    kinds=attention_kinds("q_proj.output", "out_proj"),
                ),
                plain_ffn("", "fc1", "fc2"),
            ),
        ),
    ),
)
