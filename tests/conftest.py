"""Fixtures that every room's tests share: a tiny random model and a tiny real tokenizer.

Both are made in milliseconds without any download; a test that needs another shape names only what
differs: `tiny_llama(num_key_value_heads=4)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

# Enough distinct words that the tokenizer learns merges, all of it plain ASCII.
TINY_TEXT = (
    "A path says in which order the parts of a model matter. The first parts to enter are the "
    "ones it cannot do without; the last ones can go first. Cut at any point of the path and you "
    "have a smaller model. "
) * 4


@pytest.fixture(scope="session")
def tiny_text() -> str:
    """A few hundred words to tokenise."""
    return TINY_TEXT


@pytest.fixture
def tiny_llama() -> Callable[..., Any]:
    """A factory of random Llama models: hidden 32, 2 layers, 4 query and 2 KV heads, float32."""

    def make(seed: int = 0, **changes: Any) -> Any:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        shape: dict[str, Any] = {
            "vocab_size": 300,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": None,
        }
        state = torch.random.get_rng_state()
        try:
            torch.manual_seed(seed)
            model = LlamaForCausalLM(LlamaConfig(**{**shape, **changes}))
        finally:
            torch.random.set_rng_state(state)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A byte-level BPE tokenizer with 300 entries and no special tokens, as SmolLM2 has."""
    return _tokenizer(bos=None)


@pytest.fixture(scope="session")
def tiny_bos_tokenizer() -> Any:
    """The same tokenizer, but it starts every text with `<s>`, as Llama does."""
    return _tokenizer(bos="<s>")


def _tokenizer(bos: str | None) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[] if bos is None else [bos],
    )
    tokenizer.train_from_iterator([TINY_TEXT], trainer)
    if bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos)
