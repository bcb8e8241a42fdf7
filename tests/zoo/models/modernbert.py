"""ModernBERT, with windows shorter than the texts."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.zoo.build import Case, make, text
from tests.zoo.models.bert import KINDS, SHAPE


def modernbert(head: str = "Model", **changes: Any) -> Any:
    from transformers import ModernBertConfig

    special = {f"{name}_token_id": 1 for name in ("pad", "bos", "eos", "cls", "sep")}
    local = {"local_attention": 6, "global_attn_every_n_layers": 2}
    config = ModernBertConfig(**{**SHAPE, **special, **local, **changes})
    return make(f"ModernBert{head}", config)


CASES = {
    "modernbert": Case(modernbert, text, KINDS),
    "modernbert-masked-lm-biases": Case(
        partial(modernbert, "ForMaskedLM", attention_bias=True, mlp_bias=True), text, KINDS
    ),
    "modernbert-classifier-mean": Case(
        partial(modernbert, "ForSequenceClassification", num_labels=3, classifier_pooling="mean"),
        text,
        KINDS,
    ),
}
