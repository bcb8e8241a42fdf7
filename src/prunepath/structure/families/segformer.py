"""SegFormer: stages of unequal width, keys and values from a coarser grid, a depth-wise convolution
inside the FFN whose channels go together with the FFN's. Spatial reduction and decode head stay.
"""

from __future__ import annotations

from dataclasses import replace

from prunepath.structure.families.table import Family, Stack
from prunepath.structure.families.vision import attention, mlp

__all__ = ["SEGFORMER"]

MIX_FFN = replace(
    mlp(),
    tensors={
        "dwconv.dwconv.weight": ("ffn", "", "", ""),
        "dwconv.dwconv.bias": ("ffn",),
    },
    attributes={
        f"dwconv.dwconv.{name}": "ffn" for name in ("groups", "in_channels", "out_channels")
    },
)

SEGFORMER = Family(
    name="segformer",
    model_types=("segformer",),
    stacks=(
        Stack(
            layers="stages.*.blocks",
            places=(attention(), MIX_FFN),
            merging="its FFN convolves the grid of patches",
        ),
    ),
)
