"""ViT and DeiT: pre-norm encoders of image patches; class and distillation tokens stay."""

from __future__ import annotations

from prunepath.structure.families.table import Family, Stack
from prunepath.structure.families.vision import attention, merging, mlp

__all__ = ["VIT"]

VIT = Family(
    name="vit",
    model_types=("vit", "deit"),
    stacks=(
        Stack(
            layers="layers",
            places=(attention(), mlp()),
            config_sizes={"num_attention_heads": ("head",), "intermediate_size": ("ffn",)},
            merging=merging(
                ("layernorm_before", "attention", "dropout"), ("layernorm_after", "mlp", "dropout")
            ),
        ),
    ),
)
