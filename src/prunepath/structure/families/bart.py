"""BART and relatives: post-norm encoder-decoders with separate projections and cross-attention."""

from __future__ import annotations

from dataclasses import replace

from prunepath.structure.families.bert import attention_kinds
from prunepath.structure.families.table import Family, Kind, Place, Stack

__all__ = ["BART", "encoder_decoder"]

SELF_ATTENTION = Place(
    name="self_attn",
    module="self_attn",
    sizes={"head": ".num_heads", "qk": "q_proj.out // head", "value": "v_proj.out // head"},
    linears={
        "q_proj": ("head qk", ""),
        "k_proj": ("head qk", ""),
        "v_proj": ("head value", ""),
        "out_proj": ("", "head value"),
    },
    scores="head qk",
    context="head value",
    keys="k_proj",
    native=("head",),
    attributes={"num_heads": "head"},
    kinds=attention_kinds("q_proj.output", "out_proj"),
)

CACHED_SELF_ATTENTION = replace(SELF_ATTENTION, cache=("head qk", "head value"))

CROSS_ATTENTION = replace(
    CACHED_SELF_ATTENTION, name="encoder_attn", module="encoder_attn", prefix="cross"
)

FFN = Place(
    name="ffn",
    sizes={"ffn": "fc2.in"},
    linears={"fc1": ("ffn", ""), "fc2": ("", "ffn")},
    native=("ffn",),
    kinds=(Kind(name="ffn_channel", unit="ffn", gate="fc2.input", consumer="fc2"),),
)


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
