"""Decoders: learned positions, rotary pairs in part or in full, fused projections, norms."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.zoo.build import VOCAB_SIZE, Case, make, text

WINDOW = 6
"""Shorter than the texts of the tests."""

PLAIN = ("qk_coordinate", "vo_coordinate", "head", "ffn_channel")
PARTIAL = ("qk_coordinate", "qk_plain", "vo_coordinate", "head", "ffn_channel")
GROUPED = ("qk_coordinate", "vo_coordinate", "query_head", "kv_group", "ffn_channel")
NORMED = ("vo_coordinate", "query_head", "kv_group", "ffn_channel")

SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
GROUPS: dict[str, Any] = {"num_key_value_heads": 2, "intermediate_size": 40}


def decoder(
    kind: str,
    *,
    head: str = "ForCausalLM",
    config: str = "",
    attention: str = "",
    **changes: Any,
) -> Any:
    """A tiny random decoder.

    Args:
        kind: prefix of its classes in transformers.
        head: the rest of the class's name.
        config: name of its config class, where that starts otherwise.
        attention: implementation of attention; empty: what the class prefers.
        changes: config fields beyond the common shape.
    """
    import transformers

    settings = getattr(transformers, config or f"{kind}Config")
    model = make(f"{kind}{head}", settings(**{**SHAPE, **changes}))
    if attention:
        model.set_attn_implementation(attention)
    return model


def case(
    kinds: tuple[str, ...], kind: str, *, generates: bool = True, mask: bool = True, **changes: Any
) -> Case:
    """One decoder; padded on the left, as texts to go on with are."""
    inputs = partial(text, mask=mask, side="left")
    return Case(partial(decoder, kind, **changes), inputs, kinds, generates=generates)


def seen(rows: int, tokens: int) -> dict[str, Tensor]:
    """Text, and the states of an encoder to attend to."""
    generator = torch.Generator().manual_seed(rows)
    states = torch.randn(rows, 7, SHAPE["hidden_size"], generator=generator)
    return {**text(rows, tokens), "encoder_hidden_states": states}


GPT2: dict[str, Any] = {"head": "LMHeadModel", "n_inner": 48}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
GEMMA: dict[str, Any] = {
    **GROUPS,
    "head_dim": 12,
    "query_pre_attn_scalar": 12,
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention"],
}

CASES = {
    "gpt2": case(PLAIN, "GPT2", **GPT2),
    "gpt2-eager-scaled": case(
        PLAIN,
        "GPT2",
        **GPT2,
        attention="eager",
        scale_attn_by_inverse_layer_idx=True,
        reorder_and_upcast_attn=True,
        tie_word_embeddings=False,
    ),
    "gpt2-classifier": case(
        PLAIN, "GPT2", head="ForSequenceClassification", num_labels=3, generates=False
    ),
    "gpt2-cross": Case(partial(decoder, "GPT2", **GPT2, add_cross_attention=True), seen, PLAIN),
    "opt": case(PLAIN, "OPT", ffn_dim=48),
    "opt-eager-no-bias": case(PLAIN, "OPT", ffn_dim=48, attention="eager", enable_bias=False),
    "opt-post-norm-projected": case(
        PLAIN, "OPT", ffn_dim=48, do_layer_norm_before=False, word_embed_proj_dim=16
    ),
    "gpt_neox": case(PARTIAL, "GPTNeoX", intermediate_size=48, rotary_pct=0.5),
    "gpt_neox-eager": case(
        PARTIAL, "GPTNeoX", intermediate_size=48, rotary_pct=0.25, attention="eager"
    ),
    "gpt_neox-serial-full-rotary": case(
        PLAIN,
        "GPTNeoX",
        intermediate_size=48,
        rotary_pct=1.0,
        use_parallel_residual=False,
        attention_bias=False,
    ),
    "gptj": case(PARTIAL, "GPTJ", n_inner=48, rotary_dim=4),
    "gptj-full-rotary": case(PLAIN, "GPTJ", n_inner=48, rotary_dim=8),
    "phi": case(
        ("qk_coordinate", "qk_plain", *GROUPED[1:]),
        "Phi",
        **GROUPS,
        rope_parameters={**ROPE, "partial_rotary_factor": 0.5},
    ),
    "phi-normed-eager": case(
        NORMED, "Phi", **GROUPS, attention="eager", qk_layernorm=True, partial_rotary_factor=0.5
    ),
    "phi3": case(GROUPED, "Phi3", **GROUPS),
    "phi3-eager-window": case(
        GROUPED,
        "Phi3",
        **GROUPS,
        attention="eager",
        sliding_window=WINDOW,
        tie_word_embeddings=True,
    ),
    "phi3-part-rotary": case(
        ("qk_coordinate", "qk_plain", *GROUPED[1:]),
        "Phi3",
        **GROUPS,
        rope_parameters={**ROPE, "partial_rotary_factor": 0.5},
    ),
    "qwen3": case(NORMED, "Qwen3", **GROUPS, head_dim=12),
    "qwen3-eager-bias-window": case(
        NORMED,
        "Qwen3",
        **GROUPS,
        head_dim=8,
        attention="eager",
        attention_bias=True,
        use_sliding_window=True,
        sliding_window=WINDOW,
        max_window_layers=1,
    ),
    "gemma": case(GROUPED, "Gemma", **GROUPS, head_dim=12),
    "gemma-eager-bias": case(
        GROUPED, "Gemma", **GROUPS, head_dim=12, attention="eager", attention_bias=True
    ),
    "gemma2": case(GROUPED, "Gemma2", **GEMMA, attn_logit_softcapping=2.0),
    "gemma2-uncapped": case(
        GROUPED,
        "Gemma2",
        **GEMMA,
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
    ),
    "gemma3": case(NORMED, "Gemma3", config="Gemma3TextConfig", **GEMMA),
    "gemma3-eager": case(NORMED, "Gemma3", config="Gemma3TextConfig", **GEMMA, attention="eager"),
    "starcoder2": case(GROUPED, "Starcoder2", **GROUPS, sliding_window=WINDOW),
    "starcoder2-eager-no-bias": case(
        GROUPED, "Starcoder2", **GROUPS, attention="eager", use_bias=False
    ),
    "falcon": case(GROUPED, "Falcon", ffn_hidden_size=48),
    "falcon-grouped": case(
        GROUPED, "Falcon", ffn_hidden_size=48, new_decoder_architecture=True, num_kv_heads=2
    ),
    "falcon-alibi-serial": case(
        GROUPED,
        "Falcon",
        ffn_hidden_size=48,
        alibi=True,
        multi_query=False,
        parallel_attn=False,
        bias=True,
    ),
    "falcon-alibi-eager": case(
        GROUPED, "Falcon", ffn_hidden_size=48, attention="eager", alibi=True, bias=True
    ),
    "olmo2": case(("vo_coordinate", "ffn_channel"), "Olmo2", **GROUPS),
    "olmo2-eager-bias": case(
        ("vo_coordinate", "ffn_channel"), "Olmo2", **GROUPS, attention="eager", attention_bias=True
    ),
}
