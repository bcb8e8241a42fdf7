"""Encoders that share BERT's names, or nearly."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.zoo.build import VOCAB_SIZE, Case, make, text
from tests.zoo.models.bert import KINDS, SHAPE


def encoder(kind: str, head: str = "Model", **changes: Any) -> Any:
    """`"Roberta"`, `"ForMaskedLM"` -> a tiny `RobertaForMaskedLM`."""
    import transformers

    config = getattr(transformers, f"{kind}Config")
    return make(f"{kind}{head}", config(**{**SHAPE, "pad_token_id": 1, **changes}))


def distilbert(head: str = "Model", **changes: Any) -> Any:
    from transformers import DistilBertConfig

    config = DistilBertConfig(
        vocab_size=VOCAB_SIZE,
        dim=32,
        hidden_dim=48,
        n_layers=2,
        n_heads=4,
        max_position_embeddings=64,
        **changes,
    )
    return make(f"DistilBert{head}", config)


def albert(head: str = "Model", **changes: Any) -> Any:
    fields = {"embedding_size": 16, "num_hidden_layers": 3, **changes}
    return encoder("Albert", head, **fields)


CASES = {
    "roberta": Case(partial(encoder, "Roberta"), text, KINDS),
    "roberta-masked-lm": Case(partial(encoder, "Roberta", "ForMaskedLM"), text, KINDS),
    "xlm-roberta-classifier": Case(
        partial(encoder, "XLMRoberta", "ForSequenceClassification", num_labels=3), text, KINDS
    ),
    "camembert-tokens": Case(
        partial(encoder, "Camembert", "ForTokenClassification", num_labels=5), text, KINDS
    ),
    "electra-discriminator": Case(
        partial(encoder, "Electra", "ForPreTraining", embedding_size=16), text, KINDS
    ),
    "electra-generator": Case(
        partial(encoder, "Electra", "ForMaskedLM", embedding_size=32), text, KINDS
    ),
    "mpnet": Case(partial(encoder, "MPNet"), text, KINDS),
    "mpnet-classifier": Case(
        partial(encoder, "MPNet", "ForSequenceClassification", num_labels=3), text, KINDS
    ),
    "distilbert": Case(distilbert, text, KINDS),
    "distilbert-questions": Case(partial(distilbert, "ForQuestionAnswering"), text, KINDS),
    "albert": Case(albert, text, KINDS),
    "albert-groups": Case(
        partial(albert, "ForMaskedLM", num_hidden_groups=2, inner_group_num=2, num_hidden_layers=4),
        text,
        KINDS,
    ),
}
