"""What the config of a cut model says beside the model's own fields, and which versions of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunepath.errors import ModelError, RequestError
from prunepath.structure.tokens import TokenSchedule
from prunepath.structure.units import Structure

__all__ = [
    "RECORD_VERSION",
    "record_tokens_",
    "recorded_tokens",
    "require_readable",
    "require_unmerged",
]

RECORD_VERSION = 2
_MERGING_VERSION = 3  # readers of version 2 would run such a model without merging, and not say so


def require_readable(record: Mapping[str, Any]) -> None:
    """Refuse a record of another version.

    Raises:
        ModelError: it is newer or older than this library.
    """
    found = int(record["format_version"])
    if found in (RECORD_VERSION, _MERGING_VERSION):
        return
    newer = found > _MERGING_VERSION
    raise ModelError(
        f"this model was cut by {'a newer' if newer else 'an older'} prunepath (record format "
        f"{found}, this one reads {RECORD_VERSION} and {_MERGING_VERSION}); "
        + ("upgrade prunepath" if newer else "extract it again from its path")
    )


def recorded_tokens(config: Any) -> TokenSchedule | None:
    """The schedule by which a model merges tokens, None where it merges none."""
    record = getattr(config, "prunepath", None) or {}
    return TokenSchedule.from_record(record["tokens"]) if record.get("tokens") else None


def require_unmerged(model: Any) -> None:
    """Refuse a model that already merges tokens, where a dense one is needed.

    Raises:
        RequestError: it merges tokens.
    """
    schedule = recorded_tokens(model.config)
    if schedule is not None:
        raise RequestError(
            f"this model merges tokens at run time ({schedule}), and what is measured on it would "
            "hold for that schedule only; take the model it was made from"
        )


def record_tokens_(model: Any, structure: Structure, schedule: TokenSchedule) -> None:
    """Write a schedule into the config, beside the sizes if anything was cut."""
    before = getattr(model.config, "prunepath", None) or {}
    tables = {"tables": [dict(table) for table in structure.tables]} if structure.tables else {}
    model.config.prunepath = {
        "base_model_type": structure.model_type,
        "places": {},
        **tables,
        **before,
        "format_version": _MERGING_VERSION,
        "tokens": schedule.to_record(),
    }
