"""BERT and relatives: post-norm encoders with separate projections and absolute positions."""

from __future__ import annotations

from dataclasses import replace

from prunepath.structure.families.parts import plain_attention, plain_ffn
from prunepath.structure.families.table import Family, Stack

__all__ = ["ATTENTION", "BERT", "BERT_PLACES", "FFN"]


ATTENTION = plain_attention(
    "self.query",
    "self.key",
    "self.value",
    "output.dense",
    heads=".self.num_attention_heads",
    attributes={"self.num_attention_heads": "head", "self.all_head_size": "head value"},
)

FFN = plain_ffn("", "intermediate.dense", "output.dense", name="ffn")

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
