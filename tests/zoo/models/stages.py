"""Vision transformers of several stages, alone and as the backbone of a segmentation model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.zoo.build import IMAGE, Case, images, make

KINDS = ("qk_coordinate", "vo_coordinate", "head", "ffn_channel")
COSINE = ("vo_coordinate", "head", "ffn_channel")
SWIN: dict[str, Any] = {
    "image_size": IMAGE,
    "patch_size": 2,
    "embed_dim": 16,
    "depths": [2, 1],
    "num_heads": [2, 4],
    "window_size": 4,
    "mlp_ratio": 2.0,
}
SEGFORMER: dict[str, Any] = {
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "sr_ratios": [2, 1],
    "hidden_sizes": [16, 32],
    "patch_sizes": [3, 3],
    "strides": [2, 2],
    "num_attention_heads": [2, 4],
    "mlp_ratios": [2, 2],
    "decoder_hidden_size": 16,
    "num_labels": 3,
}
FOUR_STAGES: dict[str, Any] = {
    **SWIN,
    "image_size": 32,
    "depths": [2, 1, 1, 1],
    "num_heads": [2, 2, 4, 4],
    "window_size": 2,
    "mlp_ratio": 1.0,
    "embed_dim": 8,
}
large_images = partial(images, size=32)


def vision(config: str, shape: dict[str, Any], architecture: str, **changes: Any) -> Any:
    import transformers

    return make(architecture, getattr(transformers, config)(**{**shape, **changes}))


def build(
    config: str, shape: dict[str, Any], architecture: str, **changes: Any
) -> Callable[[], Any]:
    return partial(vision, config, shape, architecture, **changes)


swin = partial(build, "SwinConfig", SWIN)
swinv2 = partial(build, "Swinv2Config", SWIN)
segformer = partial(build, "SegformerConfig", SEGFORMER)


def maskformer() -> Any:
    import transformers

    known: Any = transformers
    config = known.MaskFormerConfig(
        backbone_config=known.SwinConfig(**FOUR_STAGES),
        decoder_config=known.DetrConfig(
            backbone_config=None,
            use_timm_backbone=False,
            d_model=32,
            num_queries=5,
            encoder_layers=1,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
        ),
        fpn_feature_size=32,
        mask_feature_size=32,
        num_labels=3,
    )
    return make("MaskFormerForInstanceSegmentation", config)


def mask2former() -> Any:
    import transformers

    known: Any = transformers
    features = ["stage1", "stage2", "stage3", "stage4"]
    config = known.Mask2FormerConfig(
        backbone_config=known.SwinConfig(**FOUR_STAGES, out_features=features),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=24,
        dim_feedforward=24,
        encoder_layers=2,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=5,
        num_labels=3,
    )
    return make("Mask2FormerForUniversalSegmentation", config)


CASES = {
    "swin": Case(swin("SwinModel"), images, KINDS),
    "swin-padded": Case(
        swin("SwinForImageClassification", num_labels=3, window_size=3, qkv_bias=False),
        images,
        KINDS,
    ),
    "swin-backbone": Case(swin("SwinBackbone", out_features=["stage1", "stage2"]), images, KINDS),
    "swinv2": Case(swinv2("Swinv2Model"), images, COSINE),
    "swinv2-padded": Case(
        swinv2("Swinv2ForImageClassification", num_labels=3, window_size=3, qkv_bias=False),
        images,
        COSINE,
    ),
    "segformer": Case(segformer("SegformerForSemanticSegmentation"), images, KINDS),
    "segformer-classifier": Case(segformer("SegformerForImageClassification"), images, KINDS),
    "maskformer": Case(maskformer, large_images, KINDS),
    "mask2former": Case(mask2former, large_images, KINDS),
}
