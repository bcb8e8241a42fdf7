"""What costs are stated for: a sequence of so many tokens, or one sample of a fixed size."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prunepath.structure.units import Structure

__all__ = ["LENGTH", "stated_for"]

LENGTH = 512
"""Tokens of a sequence unless the user says otherwise."""


def stated_for(structure: Structure, sequence_length: int) -> str:
    """What the MACs of a model are counted over, in words.

    Args:
        structure: its structure.
        sequence_length: tokens of a sequence.

    Returns:
        `"512 tokens"`; `"one sample"` where the length changes nothing, as with images.
    """
    from prunepath.structure.cost import cost_of
    from prunepath.structure.selection import everything

    short, long = (cost_of(structure, everything(structure), tokens).macs for tokens in (1, 2))
    return "one sample" if short == long else f"{sequence_length} tokens"
