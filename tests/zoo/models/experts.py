"""Mixtures of experts: Mixtral, Qwen2-MoE, Qwen3-MoE, OLMoE."""

from __future__ import annotations

from functools import partial
from typing import Any

from prunepath.surgery.experts import unfuse_experts_
from tests.zoo.build import VOCAB_SIZE, Case, make, text

HEADS = ("vo_coordinate", "query_head", "kv_group")
SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def stock(architecture: str, **changes: Any) -> Any:
    """The model as transformers builds it, with its experts in one tensor."""
    import transformers

    body = architecture.removesuffix("ForCausalLM").removesuffix("Model")
    config = getattr(transformers, f"{body}Config")(**{**SHAPE, **changes})
    return make(architecture, config)


def apart(architecture: str, **changes: Any) -> Any:
    """The same with its experts apart, as they are cut."""
    model = stock(architecture, **changes)
    assert unfuse_experts_(model)
    return model


# All tokens go to all experts: how much work a cut leaves is then no matter of chance.
QWEN = {"num_experts": 3, "num_experts_per_tok": 3, "moe_intermediate_size": 12}
OPTIONS: dict[str, dict[str, Any]] = {
    "mixtral": {
        "architecture": "MixtralForCausalLM",
        "intermediate_size": 24,
        "num_local_experts": 3,
        "num_experts_per_tok": 3,
    },
    "mixtral-window": {
        "architecture": "MixtralModel",
        "intermediate_size": 24,
        "num_local_experts": 2,
        "num_experts_per_tok": 2,
        "sliding_window": 4,
    },
    "qwen2-moe": {
        "architecture": "Qwen2MoeForCausalLM",
        **QWEN,
        "intermediate_size": 20,
        "shared_expert_intermediate_size": 16,
        "decoder_sparse_step": 2,  # the first layer is dense
    },
    "qwen3-moe": {
        "architecture": "Qwen3MoeForCausalLM",
        **QWEN,
        "intermediate_size": 20,
        "head_dim": 12,
        "norm_topk_prob": True,
        "mlp_only_layers": [1],
    },
    "olmoe": {
        "architecture": "OlmoeForCausalLM",
        "intermediate_size": 16,
        "num_experts": 3,
        "num_experts_per_tok": 3,
        "clip_qkv": 0.5,
    },
}
KINDS = {
    "mixtral": ("qk_coordinate", *HEADS, "expert_channel"),
    "mixtral-window": ("qk_coordinate", *HEADS, "expert_channel"),
    "qwen2-moe": ("qk_coordinate", *HEADS, "ffn_channel", "expert_channel"),
    "qwen3-moe": (*HEADS, "ffn_channel", "expert_channel"),
    "olmoe": ("vo_coordinate", "expert_channel"),
}
# Tokens go to two experts of four, so that whole experts can leave.
CHOOSY = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2}
for _name in ("mixtral", "qwen2-moe", "qwen3-moe", "olmoe"):
    _norm = {} if _name == "mixtral" else {"norm_topk_prob": _name != "qwen3-moe"}
    OPTIONS[f"{_name}-choosy"] = {**OPTIONS[_name], **CHOOSY, **_norm}
    KINDS[f"{_name}-choosy"] = (*KINDS[_name], "expert")
CASES = {
    name: Case(
        partial(apart, **options), text, KINDS[name], generates="LM" in options["architecture"]
    )
    for name, options in OPTIONS.items()
}
