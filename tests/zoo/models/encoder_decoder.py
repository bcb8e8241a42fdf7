"""Encoder-decoders: T5, BART, mBART, Pegasus, Marian, Whisper."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.zoo.build import VOCAB_SIZE, Case, make, text

KINDS = ("qk_coordinate", "vo_coordinate", "head", "ffn_channel")


def both_texts(rows: int, tokens: int) -> dict[str, Tensor]:
    """A padded source and a shorter target."""
    target = text(rows, max(2, tokens // 2), mask=False)["input_ids"]
    return {**text(rows, tokens), "decoder_input_ids": target}


def t5(kind: str = "T5", architecture: str = "ForConditionalGeneration", **changes: Any) -> Any:
    import transformers

    shape: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "d_model": 32,
        "d_kv": 6,
        "d_ff": 40,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "num_heads": 4,
        "relative_attention_num_buckets": 8,
        "decoder_start_token_id": 0,
    }
    config = getattr(transformers, f"{kind}Config")(**{**shape, **changes})
    return make(f"{kind}{architecture}", config)


def bart(kind: str = "Bart", architecture: str = "ForConditionalGeneration", **changes: Any) -> Any:
    import transformers

    shape: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 40,
        "decoder_ffn_dim": 24,
        "max_position_embeddings": 64,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": None,
    }
    config = getattr(transformers, f"{kind}Config")(**{**shape, **changes})
    return make(f"{kind}{architecture}", config)


def whisper(architecture: str = "WhisperForConditionalGeneration") -> Any:
    from transformers import WhisperConfig

    config = WhisperConfig(
        vocab_size=VOCAB_SIZE,
        num_mel_bins=8,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=2,
        encoder_ffn_dim=40,
        decoder_ffn_dim=24,
        max_source_positions=12,
        max_target_positions=32,
        pad_token_id=1,
        bos_token_id=2,
        eos_token_id=2,
        decoder_start_token_id=3,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    return make(architecture, config)


def speech(rows: int, tokens: int) -> dict[str, Tensor]:
    """Log-mel features of a fixed length and a text."""
    generator = torch.Generator().manual_seed(rows)
    features = torch.randn(rows, 8, 24, generator=generator)
    target = text(rows, max(2, tokens // 2), mask=False)["input_ids"]
    return {"input_features": features, "decoder_input_ids": target}


CASES = {
    "t5": Case(t5, both_texts, KINDS, generates=True),
    "t5-gated-untied": Case(
        partial(t5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
        both_texts,
        KINDS,
        generates=True,
    ),
    "t5-encoder": Case(partial(t5, architecture="EncoderModel"), text, KINDS),
    "bart": Case(bart, both_texts, KINDS, generates=True),
    "bart-body": Case(partial(bart, architecture="Model"), both_texts, KINDS),
    "mbart": Case(partial(bart, "MBart"), both_texts, KINDS, generates=True),
    "pegasus": Case(partial(bart, "Pegasus"), both_texts, KINDS, generates=True),
    "marian": Case(
        partial(bart, "Marian", architecture="MTModel"), both_texts, KINDS, generates=True
    ),
    "mt5-encoder": Case(partial(t5, "MT5", architecture="EncoderModel"), text, KINDS),
    "umt5": Case(partial(t5, "UMT5"), both_texts, KINDS, generates=True),
    "blenderbot": Case(partial(bart, "Blenderbot"), both_texts, KINDS, generates=True),
    "blenderbot-small": Case(partial(bart, "BlenderbotSmall"), both_texts, KINDS, generates=True),
    "m2m": Case(partial(bart, "M2M100"), both_texts, KINDS, generates=True),
    "plbart": Case(partial(bart, "PLBart"), both_texts, KINDS, generates=True),
    "whisper": Case(whisper, speech, KINDS, generates=True),
}
