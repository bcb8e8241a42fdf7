"""Labels as tables hold them (text, numbers, class names) become what a task compares with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from prunepath.errors import DataError

if TYPE_CHECKING:
    from prunepath.data.tables import Row

__all__ = ["class_label", "number_label"]


def number_label(row: Row) -> float:
    """The label of a row as a number.

    Args:
        row: of a table.

    Raises:
        DataError: the label is no finite number.
    """
    try:
        number = float(row.label)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(
            f"{row.where} has the label {row.label!r}, which is no number, and one is "
            "needed; name another column with label_field= (--label-field)"
        )
    return number


def class_label(row: Row, names: list[str], label2id: Mapping[str, int] | None) -> int:
    """The class index a label means: a name the model knows, or the index itself.

    Args:
        row: of a table.
        names: of the model's classes, in order.
        label2id: name -> index, as the model's config has it.

    Raises:
        DataError: the model has no such class.
    """
    text = str(row.label).strip()
    known = {str(name).lower(): index for name, index in (label2id or {}).items()}
    if text.lower() in known and not isinstance(row.label, int):
        return int(known[text.lower()])
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if number.is_integer() and 0 <= number < len(names):
        return int(number)
    raise DataError(
        f"{row.where} has the label {row.label!r}, and the model's classes are "
        f"{', '.join(names[:10])}{', ...' if len(names) > 10 else ''} (0 to {len(names) - 1}); "
        "mend the label, or name another column with label_field= (--label-field)"
    )
