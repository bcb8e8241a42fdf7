"""mBART and relatives: the module names of BART with the norms in front of the sub-layers."""

from __future__ import annotations

from prunepath.structure.families.bart import encoder_decoder
from prunepath.structure.families.table import Family

__all__ = ["MBART"]

MBART = Family(
    name="mbart",
    model_types=("mbart", "pegasus", "blenderbot", "m2m_100"),
    stacks=encoder_decoder(additive=True),
)
