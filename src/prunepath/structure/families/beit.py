"""BEiT: ViT with layer scale and relative position biases, per layer or one for all layers.

A bias table of the layer loses its columns together with the heads. One table for all layers can't,
because each layer keeps heads of its own: then the code goes on running all heads.
"""

from __future__ import annotations

from prunepath.structure.families.table import Family, Stack
from prunepath.structure.families.vision import attention, merging, mlp

__all__ = ["BEIT"]

GRID = "attention adds a bias per pair of grid positions, and a merged token has several of them"

BEIT = Family(
    name="beit",
    model_types=("beit",),
    stacks=(
        Stack(
            layers="layers",
            places=(
                attention(
                    module="",
                    inside="attention",
                    held={"head": "use_shared_relative_position_bias"},
                    tensors={"relative_position_bias.relative_position_bias_table": ("", "head")},
                ),
                mlp(),
            ),
            config_sizes={"intermediate_size": ("ffn",)},
            additive=False,  # layer scale
            merging=merging(
                ("layernorm_before", "attention", "dropout", "lambda_1", "drop_path"),
                ("layernorm_after", "mlp", "dropout", "lambda_2", "drop_path"),
                refuse={
                    "use_relative_position_bias": GRID,
                    "use_shared_relative_position_bias": GRID,
                },
            ),
        ),
    ),
)
