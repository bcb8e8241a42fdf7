"""T5 and relatives: pre-norm encoder-decoders without biases, with relative position biases.

The first layer of each stack computes the position bias of all its layers, for the dense number of
heads, so a head that goes is filled with zeros and not taken out of the model's own code.
"""

from __future__ import annotations

from dataclasses import replace

from prunepath.structure.families.parts import plain_attention, plain_ffn
from prunepath.structure.families.table import Family, Place, Stack

__all__ = ["T5"]

SELF_ATTENTION = plain_attention(
    "q",
    "k",
    "v",
    "o",
    name="self_attention",
    module="layer.0.SelfAttention",
    heads=".n_heads",
    native=False,
)

CACHED_SELF_ATTENTION = replace(SELF_ATTENTION, cache=("head qk", "head value"))

CROSS_ATTENTION = replace(
    CACHED_SELF_ATTENTION,
    name="cross_attention",
    module="layer.1.EncDecAttention",
    prefix="cross",
)


def ffn(module: str) -> tuple[Place, ...]:
    """The plain and the gated form of the FFN, of which a model has one."""
    plain = plain_ffn(module, "wi", "wo", name="ffn", optional=True)
    gated = {"wi_0": ("ffn", ""), "wi_1": ("ffn", ""), "wo": ("", "ffn")}
    return plain, replace(plain, linears=gated)


T5 = Family(
    name="t5",
    model_types=("t5", "mt5", "umt5"),
    stacks=(
        Stack(
            layers="encoder.block",
            places=(SELF_ATTENTION, *ffn("layer.1.DenseReluDense")),
            config_sizes={"d_ff": ("ffn",)},
        ),
        Stack(
            layers="decoder.block",
            places=(CACHED_SELF_ATTENTION, CROSS_ATTENTION, *ffn("layer.2.DenseReluDense")),
            config_sizes={"d_ff": ("ffn",)},
        ),
    ),
)
