"""BERT with its norms in front of each sub-layer, so that sub-layers add to the residual stream."""

from __future__ import annotations

from prunepath.structure.families.bert import BERT_PLACES
from prunepath.structure.families.table import Family, Stack

__all__ = ["PRENORM_BERT"]

PRENORM_BERT = Family(
    name="prenorm_bert",
    model_types=("roberta-prelayernorm", "megatron-bert", "xlm-roberta-xl"),
    stacks=(
        Stack(
            layers="encoder.layer",
            places=BERT_PLACES,
            config_sizes={"intermediate_size": ("ffn",)},
        ),
    ),
)
