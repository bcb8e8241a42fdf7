"""Encoders that share BERT's names, or nearly."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

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


def reading(rows: int, tokens: int) -> dict[str, Tensor]:
    """A text, and the states of an encoder that cross-attention reads, more than the text has."""
    generator = torch.Generator().manual_seed(rows)
    states = torch.randn(rows, tokens + 3, SHAPE["hidden_size"], generator=generator)
    return {**text(rows, tokens), "encoder_hidden_states": states}


def translating(rows: int, tokens: int) -> dict[str, Tensor]:
    """Two texts, one for an encoder and one for a decoder."""
    return {**text(rows, tokens), "decoder_input_ids": text(rows, tokens // 2)["input_ids"]}


def bert_to_bert() -> Any:
    from transformers import BertConfig, EncoderDecoderConfig

    config = EncoderDecoderConfig.from_encoder_decoder_configs(
        BertConfig(**SHAPE), BertConfig(**{**SHAPE, "intermediate_size": 40})
    )
    config.decoder_start_token_id, config.pad_token_id = 2, 0
    return make("EncoderDecoderModel", config)


DECODER: dict[str, Any] = {"is_decoder": True, "bos_token_id": 2, "eos_token_id": 3}
CASES = {
    "bert-decoder": Case(
        partial(encoder, "Bert", "LMHeadModel", **DECODER), text, KINDS, generates=True
    ),
    "bert-cross-attention": Case(
        partial(encoder, "Bert", "LMHeadModel", add_cross_attention=True, **DECODER),
        reading,
        KINDS,
    ),
    "bert-to-bert": Case(bert_to_bert, translating, KINDS, generates=True),
    "bert-generation": Case(partial(encoder, "BertGeneration", "Encoder"), text, KINDS),
    "data2vec-text": Case(partial(encoder, "Data2VecText"), text, KINDS),
    "ernie": Case(partial(encoder, "Ernie"), text, KINDS),
    "roc-bert": Case(
        partial(
            encoder,
            "RoCBert",
            shape_vocab_size=VOCAB_SIZE,
            pronunciation_vocab_size=VOCAB_SIZE,
            shape_embed_dim=16,
            pronunciation_embed_dim=16,
        ),
        text,
        KINDS,
    ),
    "roberta-prelayernorm": Case(
        partial(encoder, "RobertaPreLayerNorm", "ForMaskedLM"), text, KINDS
    ),
    "megatron-bert": Case(partial(encoder, "MegatronBert"), text, KINDS),
    "xlm-roberta-xl": Case(partial(encoder, "XLMRobertaXL"), text, KINDS),
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
