"""Whisper: the encoder sees as many positions as the audio has; its convolutions stay."""

from __future__ import annotations

from prunepath.structure.families.bart import encoder_decoder
from prunepath.structure.families.table import Family

__all__ = ["WHISPER"]

WHISPER = Family(name="whisper", model_types=("whisper",), stacks=encoder_decoder(additive=True))
