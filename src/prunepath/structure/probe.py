"""Ask a config class which sizes it accepts, instead of copying its rules."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from math import prod
from typing import Any

__all__ = ["legal_sizes"]

_MOST_COMBINATIONS = 256  # head counts are small; widths accept anything and are not probed


def legal_sizes(
    config: Any, config_sizes: Mapping[str, tuple[str, ...]], factors: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """Values of each config field that its config class accepts.

    Args:
        config: the dense model's config.
        config_sizes: config field -> factors whose product it states.
        factors: dense size of each factor.

    Returns:
        field -> legal values, for the fields small enough to try; others accept anything.
    """
    legal: dict[str, tuple[int, ...]] = {}
    for field, names in config_sizes.items():
        if not set(names) <= set(factors):
            continue  # no place with that factor was found
        ranges = [range(1, factors[name] + 1) for name in names]
        if prod(len(r) for r in ranges) > _MOST_COMBINATIONS:
            continue
        values = sorted({prod(combination) for combination in product(*ranges)})
        legal[field] = tuple(value for value in values if _accepts(config, field, value))
    return legal


def _accepts(config: Any, field: str, value: int) -> bool:
    fields = {**config.to_dict(), field: value}
    if not isinstance(getattr(type(config), "head_dim", None), property):
        fields.setdefault("head_dim", None)
    try:
        type(config)(**fields)
    except Exception:  # the class decides; whatever it raises means no
        return False
    return True
