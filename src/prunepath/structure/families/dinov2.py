"""DINOv2, with register tokens or without: layer scale, and a plain or a gated FFN.

The config states the FFN as a ratio to the residual width, so no field can state a cut one.
"""

from __future__ import annotations

from dataclasses import replace

from prunepath.structure.families.llama import GATED_FFN
from prunepath.structure.families.table import Family, Stack
from prunepath.structure.families.vision import attention, merging, mlp

__all__ = ["DINOV2"]

DINOV2 = Family(
    name="dinov2",
    model_types=("dinov2", "dinov2_with_registers"),
    stacks=(
        Stack(
            layers="encoder.layer",
            places=(attention(), mlp(optional=True), replace(GATED_FFN, optional=True)),
            config_sizes={"num_attention_heads": ("head",)},
            additive=False,  # layer scale
            merging=merging(
                ("norm1", "attention", "layer_scale1", "drop_path"),
                ("norm2", "mlp", "layer_scale2", "drop_path"),
            ),
        ),
    ),
)
