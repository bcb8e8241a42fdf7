"""Rows of a file as they are: one small function per format, each with its own complaint.

A row has names for its cells; where a file gives none they are called `1`, `2`, `3`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prunepath.data.readers import file_pieces
from prunepath.errors import DataError

__all__ = ["SUFFIXES", "Cells", "file_rows"]

_CSV = {".csv": ",", ".tsv": "\t"}
_JSON = frozenset({".json", ".jsonl", ".ndjson"})
_PLAIN = frozenset({".text", ".txt"})

SUFFIXES = frozenset(_CSV) | _JSON | _PLAIN
"""Endings of the files that can be read."""

Cells = Mapping[str, Any]
"""A row as it was found: name of the column -> what is in it."""


def file_rows(path: Path, headed: Callable[[list[str]], bool]) -> Iterator[tuple[str, Cells]]:
    """The rows of a file.

    Args:
        path: a `.tsv`, `.csv`, `.jsonl`, `.json` or `.txt` file that exists.
        headed: whether a first line of such cells names the columns of a `.tsv` or `.csv` file.

    Returns:
        What to call each row in a message, and its cells.

    Raises:
        DataError: the file is of another kind, or a line cannot be read; the line is named.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        raise DataError(f"{path} is a folder; name one .tsv, .csv or .jsonl file in it")
    if suffix in _CSV:
        return _csv_rows(path, _CSV[suffix], headed)
    if suffix in _JSON:
        return _json_rows(path)
    if suffix in _PLAIN or not suffix:
        return _plain_rows(path)
    raise DataError(
        f"cannot read rows from the {suffix} file {path}; convert it to .tsv, .csv or .jsonl, or "
        "open it with the datasets library and pass the dataset object"
    )


def _csv_rows(
    path: Path, delimiter: str, headed: Callable[[list[str]], bool]
) -> Iterator[tuple[str, Cells]]:
    text = "".join(file_pieces(path))
    # Quotation marks of a .tsv file are text; a .csv file quotes cells that hold commas.
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL,
    )
    names: list[str] = []
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            where = f"line {reader.line_num} of {path}"
            if not names:
                if headed(cells):
                    names = [cell.strip() for cell in cells]
                    continue
                names = [str(number + 1) for number in range(len(cells))]
            if len(cells) != len(names):
                raise DataError(
                    f"{where} has {len(cells)} cells, but the first line has {len(names)}; mend "
                    "that line (a .csv cell with a comma needs quotation marks)"
                )
            yield where, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise DataError(
            f"line {reader.line_num} of {path} cannot be read ({error}); mend that line"
        ) from None


def _json_rows(path: Path) -> Iterator[tuple[str, Cells]]:
    text = "".join(file_pieces(path))
    listed = path.suffix.lower() == ".json" and text.lstrip().startswith("[")
    parts = [(None, text)] if listed else list(enumerate(text.split("\n"), start=1))
    for number, part in parts:
        if not part.strip():
            continue
        try:
            found = json.loads(part)
        except json.JSONDecodeError as error:
            raise DataError(
                f"line {number or error.lineno} of {path} is not JSON ({error.msg} at column "
                f"{error.colno}); mend that line"
            ) from None
        items = enumerate(found) if listed else [(number, found)]
        for index, item in items:
            where = f"{'object' if listed else 'line'} {index} of {path}"
            if not isinstance(item, Mapping):
                raise DataError(
                    f"{where} is a {type(item).__name__}, not an object; give objects with a field "
                    "for every column"
                )
            yield where, item


def _plain_rows(path: Path) -> Iterator[tuple[str, Cells]]:
    for number, line in enumerate("".join(file_pieces(path)).split("\n"), start=1):
        if line.strip():
            yield f"line {number} of {path}", {"1": line.rstrip("\r")}
