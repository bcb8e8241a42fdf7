"""Name tables, one family a file. A family holds data only; see `table.py` for the words."""

from __future__ import annotations

from prunepath.registry import Registry
from prunepath.structure.families.table import Family, Kind, Merging, Place, Stack

__all__ = [
    "FAMILIES",
    "Family",
    "Kind",
    "Merging",
    "Place",
    "Stack",
    "family_for",
    "register_family",
    "ships_with_us",
]

FAMILIES: Registry[Family] = Registry("family", "prunepath.families")
_SHIPPED = (
    "llama",
    "bert",
    "prenorm_bert",
    "mpnet",
    "distilbert",
    "albert",
    "deberta",
    "modernbert",
    "t5",
    "bart",
    "mbart",
    "whisper",
    "gpt2",
    "opt",
    "gpt_neox",
    "gptj",
    "phi",
    "phi3",
    "qwen3",
    "gemma2",
    "olmo2",
    "starcoder2",
    "falcon",
    "vit",
    "dinov2",
    "beit",
    "swin",
    "swinv2",
    "clip",
    "siglip",
    "blip",
    "segformer",
    "maskformer",
    "mask2former",
    "mixtral",
    "qwen2_moe",
    "qwen3_moe",
    "olmoe",
)
for _name in _SHIPPED:
    FAMILIES.register(_name, f"prunepath.structure.families.{_name}:{_name.upper()}")


def register_family(family: Family) -> None:
    """Add a family of your own; it is found by its `model_types` from then on.

    Args:
        family: the table; see `prunepath.structure.families.llama` for a complete one.

    Raises:
        RequestError: a family of that name exists.
    """
    FAMILIES.register(family.name, family)


def family_for(model_type: str) -> Family | None:
    """The family that covers a `config.model_type`, or None."""
    for name in FAMILIES:
        family = FAMILIES[name]
        if model_type in family.model_types:
            return family
    return None


def ships_with_us(family: Family) -> bool:
    """Whether a table is part of this library: whoever has the library has the table."""
    return family.name in _SHIPPED and FAMILIES[family.name] == family
