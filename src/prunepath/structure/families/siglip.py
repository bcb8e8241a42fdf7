"""The image tower of SigLIP: layers as in CLIP; the attention pooling behind them stays.

The pooling has an FFN of the width that the config states for the layers, so the config can't state
one that was cut in the layers only.
"""

from __future__ import annotations

from dataclasses import replace

from prunepath.structure.families.clip import LAYER, PATCHES
from prunepath.structure.families.table import Family, Stack

__all__ = ["SIGLIP"]

SIGLIP = Family(
    name="siglip",
    model_types=("siglip_vision_model", "siglip2_vision_model"),
    stacks=(
        Stack(
            layers="encoder.layers",
            places=LAYER,
            merging=replace(
                PATCHES,
                refuse={  # a field of SigLIP 2 alone
                    "num_patches": "images of any shape are padded, and masks say which patches "
                    "are real"
                },
            ),
        ),
    ),
)
