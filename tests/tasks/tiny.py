"""Tiny random models and a tokenizer of words, put together as an opened model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

TEXT = "a film that is fine poor not very long and short the cat sat on mat it was"
WORDS = TEXT.split()
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SHAPE: dict[str, Any] = {
    "vocab_size": len(SPECIAL) + len(WORDS),
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 24,
    "pad_token_id": 0,
}
SEQ2SEQ: dict[str, Any] = {
    "vocab_size": SHAPE["vocab_size"],
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "decoder_start_token_id": 3,
}


def word_tokenizer(*, pad: bool = True, mask: bool = True, longest: int = 24) -> Any:
    """One token per word, framed by `[CLS]` and `[SEP]`, with token types for pairs."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    make: Any = transformers.PreTrainedTokenizerFast
    return make(
        tokenizer_object=tokenizer,
        model_max_length=longest,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        **({"pad_token": "[PAD]"} if pad else {}),
        **({"mask_token": "[MASK]"} if mask else {}),
    )


def opened(architecture: str, tokenizer: Any = None, processor: Any = None, **config: Any) -> Any:
    """An opened model with random weights: `opened("BertForMaskedLM")`."""
    import transformers

    cls = getattr(transformers, architecture)
    shape = SEQ2SEQ if "encoder_layers" in cls.config_class().to_dict() else SHAPE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = cls(cls.config_class(**{**shape, **config})).eval()
    return SimpleNamespace(
        model=model,
        tokenizer=word_tokenizer() if tokenizer is None else tokenizer or None,
        processor=processor,
        image_settings=None,
        model_id=f"tiny {architecture}",
    )
