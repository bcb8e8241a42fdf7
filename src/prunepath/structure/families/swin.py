"""Swin: attention in windows, stages of unequal width and head count; patch merging stays.

All stages are one stack; its layers are numbered on. The config states the FFN as a ratio to the
width of each stage, so no field can state a cut one. MaskFormer's copy of Swin has the older
module names, whatever type its config says.
"""

from __future__ import annotations

from dataclasses import replace

from prunepath.structure.families.bert import ATTENTION, FFN
from prunepath.structure.families.table import Family, Stack
from prunepath.structure.families.vision import WINDOWS, attention, mlp

__all__ = ["STAGES", "SWIN"]

STAGES = "encoder.layers.*.blocks"

SWIN = Family(
    name="swin",
    model_types=("swin", "maskformer-swin"),
    stacks=(
        Stack(
            layers=STAGES,
            merging=WINDOWS,
            places=(
                attention(
                    tensors={"relative_position_bias.relative_position_bias_table": ("", "head")},
                    optional=True,
                ),
                mlp(optional=True),
                replace(
                    ATTENTION,
                    tensors={"self.relative_position_bias_table": ("", "head")},
                    optional=True,
                ),
                replace(FFN, optional=True),
            ),
        ),
    ),
)
