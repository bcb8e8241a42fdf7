"""BERT and relatives: post-norm encoders with separate projections and absolute positions."""

from __future__ import annotations

from dataclasses import replace

from prunepath.structure.families.table import Family, Kind, Place, Stack

__all__ = ["BERT", "BERT_PLACES", "FFN", "attention_kinds"]


def attention_kinds(query: str, output: str) -> tuple[Kind, ...]:
    """Kinds of plain multi-head attention: both coordinates, and whole heads.

    Args:
        query: where the gate of a query-key coordinate sits: `"q_proj.output"`.
        output: the linear map behind the heads.
    """
    behind = {"gate": f"{output}.input", "consumer": output}
    return (
        Kind(name="qk_coordinate", unit="head qk", tied="head", gate=query),
        Kind(name="vo_coordinate", unit="head value", tied="head", **behind),
        Kind(name="head", unit="head", **behind),
    )


ATTENTION = Place(
    name="attention",
    module="attention",
    sizes={
        "head": ".self.num_attention_heads",
        "qk": "self.query.out // head",
        "value": "self.value.out // head",
    },
    linears={
        "self.query": ("head qk", ""),
        "self.key": ("head qk", ""),
        "self.value": ("head value", ""),
        "output.dense": ("", "head value"),
    },
    scores="head qk",
    context="head value",
    keys="self.key",
    native=("head",),
    attributes={"self.num_attention_heads": "head", "self.all_head_size": "head value"},
    kinds=attention_kinds("self.query.output", "output.dense"),
)

FFN = Place(
    name="ffn",
    sizes={"ffn": "output.dense.in"},
    linears={"intermediate.dense": ("ffn", ""), "output.dense": ("", "ffn")},
    native=("ffn",),
    kinds=(
        Kind(name="ffn_channel", unit="ffn", gate="output.dense.input", consumer="output.dense"),
    ),
)

CROSS_ATTENTION = replace(
    ATTENTION,
    name="crossattention",
    module="crossattention",
    prefix="cross",
    optional=True,  # of decoders that read an encoder
)

BERT_PLACES = (ATTENTION, CROSS_ATTENTION, FFN)
"""The sub-layers of a layer, wherever its norms are."""

BERT = Family(
    name="bert",
    model_types=(
        "bert",
        "roberta",
        "xlm-roberta",
        "camembert",
        "electra",
        "data2vec-text",
        "ernie",
        "bert-generation",
        "roc_bert",
    ),
    stacks=(
        Stack(
            layers="encoder.layer",
            places=BERT_PLACES,
            config_sizes={"intermediate_size": ("ffn",)},
            additive=False,
        ),
    ),
)
