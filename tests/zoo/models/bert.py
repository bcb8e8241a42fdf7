"""Encoders with the module names of BERT."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.zoo.build import VOCAB_SIZE, Case, make, text

KINDS = ("qk_coordinate", "vo_coordinate", "head", "ffn_channel")
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}


def bert(architecture: str = "BertModel", **changes: Any) -> Any:
    from transformers import BertConfig

    return make(architecture, BertConfig(**{**SHAPE, **changes}))


CASES = {
    "bert": Case(bert, text, KINDS),
    "bert-classifier": Case(
        partial(bert, "BertForSequenceClassification", num_labels=3), text, KINDS
    ),
}
