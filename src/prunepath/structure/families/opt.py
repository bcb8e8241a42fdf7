"""OPT: decoders with learned positions, separate projections and biases, pre-norm or post-norm."""

from __future__ import annotations

from prunepath.structure.families.parts import plain_attention, plain_ffn
from prunepath.structure.families.table import Family, Stack

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
                plain_attention(
                    "q_proj",
                    "k_proj",
                    "v_proj",
                    "out_proj",
                    name="self_attn",
                    module="self_attn",
                    sizes={"head": ".num_heads", "qk": ".head_dim", "value": ".head_dim"},
                    attributes={"num_heads": "head"},
                    cache=("head qk", "head value"),
                ),
                plain_ffn("", "fc1", "fc2"),
            ),
        ),
    ),
)
