"""Vision transformers on plain patches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.zoo.build import IMAGE, Case, images, make

KINDS = ("qk_coordinate", "vo_coordinate", "head", "ffn_channel")
SHAPE: dict[str, Any] = {
    "image_size": IMAGE,
    "patch_size": 4,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
FFN: dict[str, Any] = {"intermediate_size": 48}
RATIO: dict[str, Any] = {"mlp_ratio": 2}


def vision(config: str, architecture: str, **changes: Any) -> Any:
    import transformers

    return make(architecture, getattr(transformers, config)(**{**SHAPE, **changes}))


def builder(config: str, **shape: Any) -> Callable[..., Callable[[], Any]]:
    """(architecture, changes) -> what builds it."""

    def build(architecture: str, **changes: Any) -> Callable[[], Any]:
        return partial(vision, config, architecture, **{**shape, **changes})

    return build


vit = builder("ViTConfig", **FFN)
deit = builder("DeiTConfig", **FFN)
dinov2 = builder("Dinov2Config", **RATIO)
registers = builder("Dinov2WithRegistersConfig", **RATIO, num_register_tokens=3)
beit = builder("BeitConfig", **FFN)

CASES = {
    "vit": Case(vit("ViTModel"), images, KINDS),
    "vit-classifier": Case(
        vit("ViTForImageClassification", num_labels=3, qkv_bias=False), images, KINDS
    ),
    "deit": Case(deit("DeiTForImageClassification", num_labels=3), images, KINDS),
    "deit-distilled": Case(
        deit("DeiTForImageClassificationWithTeacher", num_labels=3), images, KINDS
    ),
    "dinov2": Case(dinov2("Dinov2Model"), images, KINDS),
    "dinov2-gated": Case(
        dinov2("Dinov2ForImageClassification", num_labels=3, use_swiglu_ffn=True), images, KINDS
    ),
    "dinov2-backbone": Case(
        dinov2("Dinov2Backbone", out_features=["stage1", "stage2"]), images, KINDS
    ),
    "dinov2-registers": Case(registers("Dinov2WithRegistersModel"), images, KINDS),
    "dinov2-registers-gated": Case(
        registers("Dinov2WithRegistersForImageClassification", num_labels=3, use_swiglu_ffn=True),
        images,
        KINDS,
    ),
    "beit": Case(
        beit("BeitForImageClassification", num_labels=3, use_relative_position_bias=True),
        images,
        KINDS,
    ),
    "beit-shared-bias": Case(
        beit("BeitModel", use_shared_relative_position_bias=True, layer_scale_init_value=0.0),
        images,
        KINDS,
    ),
    "beit-absolute": Case(
        beit("BeitModel", use_absolute_position_embeddings=True, use_mean_pooling=False),
        images,
        KINDS,
    ),
}
