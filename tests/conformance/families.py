"""The models every method and every unit kind is tested on: one line joins the table.

All are tiny and random. Weights are large enough that a cut changes the logits visibly, biases are
not zero, and sliding windows are shorter than the sequences of the tests, so that nothing passes
by being negligible.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from prunepath.structure.discover import discover
from prunepath.structure.units import Structure

VOCAB_SIZE = 128
WINDOW = 8

_SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 48,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def tiny(kind: str, **changes: Any) -> Any:
    """A random model in float32 on the CPU, in evaluation mode; the same one every time.

    Args:
        kind: prefix of a transformers causal language model, for example `"Qwen2"`.
        changes: config fields that differ from the common shape.
    """
    import transformers

    config = getattr(transformers, f"{kind}Config")(**{**_SHAPE, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, f"{kind}ForCausalLM")(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.normal_(1.0 if "norm" in name else 0.0, 0.15)
    return model.eval()


# One line a family: what it has that the others lack.
FAMILIES: dict[str, Callable[[], Any]] = {
    "llama-gqa-tied-biases": partial(
        tiny, "Llama", tie_word_embeddings=True, attention_bias=True, mlp_bias=True
    ),
    "llama-untied": partial(tiny, "Llama", num_hidden_layers=3),
    "llama-mha": partial(tiny, "Llama", num_key_value_heads=4, intermediate_size=40),
    "llama-wide-heads": partial(tiny, "Llama", head_dim=16, hidden_size=32, intermediate_size=52),
    "mistral-sliding": partial(
        tiny, "Mistral", num_attention_heads=6, head_dim=8, sliding_window=WINDOW
    ),
    "qwen2-mixed-sliding": partial(
        tiny, "Qwen2", use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1
    ),
}


@cache
def dense(family: str, attention: str = "sdpa") -> Any:
    """The dense model of a family, shared by all tests: read it, never write it."""
    model = FAMILIES[family]()
    model.set_attn_implementation(attention)
    return model


@cache
def structure_of(family: str) -> Structure:
    """Its structure."""
    return discover(dense(family))


@cache
def unit_kinds(family: str) -> tuple[str, ...]:
    """Its unit kinds, then `"all kinds"`."""
    return (*structure_of(family).kinds, "all kinds")


def random_tokens(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Token ids, int64, shape (rows, columns)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB_SIZE, (rows, columns), generator=generator)
