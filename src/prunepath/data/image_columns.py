"""Which columns of a table hold images and what is said about them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from prunepath.errors import DataError

__all__ = ["IMAGE_COLUMNS", "pick_columns"]

IMAGE_COLUMNS = ("image", "img", "image_path", "file_name", "filename", "path", "jpg", "png")
"""Usual names of a column with images or their paths."""


def pick_columns(
    there: Iterable[Any],
    source: str,
    *,
    columns: tuple[str, ...],
    image_field: str = "",
    field: str = "",
    argument: str = "label_field",
    needed: bool = True,
) -> tuple[str, str | None]:
    """The column with images and the one with what is said about them of a table.

    Args:
        there: the columns there are.
        source: what to call the table in messages.
        columns: usual names of the second column.
        image_field: the image column that was asked for; empty: by custom.
        field: the second column that was asked for; empty: by custom.
        argument: name of the argument that asks for it.
        needed: whether it must be there.

    Returns:
        Both names; None for a second column that is not there.

    Raises:
        DataError: a column that is needed or was asked for is not there.
    """
    names = [str(name) for name in there]
    image = _column(names, IMAGE_COLUMNS, image_field, "text_field", source)
    other = _column(names, columns, field, argument, source)
    # Where the text column is asked for by name, the image column has to have a usual one.
    advice = "Rename the column" if argument == "text_field" else _name_it("text_field")
    if image is None:
        raise _no_column(names, IMAGE_COLUMNS, advice, source)
    if other is None and needed:
        raise _no_column(names, columns, _name_it(argument), source)
    return image, other


def _column(
    names: list[str], usual: tuple[str, ...], asked: str, argument: str, source: str
) -> str | None:
    if not asked:
        lower = {name.lower(): name for name in reversed(names)}
        return next((lower[name] for name in usual if name in lower), None)
    if asked not in names:
        close = difflib.get_close_matches(asked, names, n=1)
        hint = f", did you mean '{close[0]}'?" if close else ""
        raise DataError(
            f"{source} has no column '{asked}'{hint} (it has: {', '.join(names)}). "
            f"{_name_it(argument)}"
        )
    return asked


def _no_column(names: list[str], usual: tuple[str, ...], advice: str, source: str) -> DataError:
    return DataError(
        f"{source} has no column of a usual name ({', '.join(usual)}); it has: "
        f"{', '.join(names) or 'none'}. {advice}"
    )


def _name_it(argument: str) -> str:
    return f"Name the column with {argument}= (--{argument.replace('_', '-')})"
