"""BART and relatives: post-norm encoder-decoders with separate projections and cross-attention."""

from __future__ import annotations

from dataclasses import replace

from prunepath.structure.families.parts import plain_attention, plain_ffn
from prunepath.structure.families.table import Family, Stack

__all__ = ["BART", "encoder_decoder"]

SELF_ATTENTION = plain_attention(
    "q_proj",
    "k_proj",
    "v_proj",
    "out_proj",
    name="self_attn",
    module="self_attn",
    heads=".num_heads",
    attributes={"num_heads": "head"},
)

CACHED_SELF_ATTENTION = replace(SELF_ATTENTION, cache=("head qk", "head value"))

CROSS_ATTENTION = replace(
    CACHED_SELF_ATTENTION, name="encoder_attn", module="encoder_attn", prefix="cross"
)

FFN = plain_ffn("", "fc1", "fc2", name="ffn")


def encoder_decoder(*, additive: bool) -> tuple[Stack, Stack]:
    """Both stacks of a model with these names.

    Args:
        additive: see `Stack`: the norms stand in front of the sub-layers.
    """
    return (
        Stack(
            layers="encoder.layers",
            places=(SELF_ATTENTION, FFN),
            config_sizes={"encoder_ffn_dim": ("ffn",)},
            additive=additive,
        ),
        Stack(
            layers="decoder.layers",
            places=(CACHED_SELF_ATTENTION, CROSS_ATTENTION, FFN),
            config_sizes={"decoder_ffn_dim": ("ffn",)},
            additive=additive,
        ),
    )


BART = Family(
    name="bart",
    model_types=("bart", "plbart", "marian", "blenderbot-small"),
    stacks=encoder_decoder(additive=False),
)
