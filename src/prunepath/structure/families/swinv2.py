"""Swinv2: Swin with cosine attention, biases from a small network, and norms behind sub-layers."""

from __future__ import annotations

from dataclasses import replace

from prunepath.structure.families.bert import ATTENTION, FFN
from prunepath.structure.families.swin import STAGES
from prunepath.structure.families.table import Family, Stack
from prunepath.structure.families.vision import WINDOWS

__all__ = ["SWINV2"]

COSINE = (
    "queries and keys are compared by their cosine: each is divided by its norm over the head "
    "dimension, which changes when coordinates go"
)

SWINV2 = Family(
    name="swinv2",
    model_types=("swinv2",),
    stacks=(
        Stack(
            layers=STAGES,
            merging=WINDOWS,
            places=(
                replace(
                    ATTENTION,
                    tensors={
                        "self.logit_scale": ("head", "", ""),
                        "self.continuous_position_bias_mlp.2.weight": ("head", ""),
                    },
                    refuse={"self.logit_scale": (("qk_coordinate",), COSINE)},
                ),
                FFN,
            ),
            additive=False,  # a norm between each sub-layer and the residual stream
        ),
    ),
)
