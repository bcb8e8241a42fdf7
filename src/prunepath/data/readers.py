"""The readers behind `open_texts`: one small function per format, each with its own complaint."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prunepath.errors import DataError
from prunepath.extras import require_extra

__all__ = [
    "default_documents",
    "file_pieces",
    "json_documents",
    "missing_file_message",
    "open_hub",
    "row_text",
]

# Characters read at a time from a text file.
_PIECE_CHARS = 1 << 20
# The packaged text: documents are separated by a form feed, the last ones are for evaluation.
_DOCUMENT_MARK = "\n\f\n"
_NUM_EVALUATION_DOCUMENTS = 5
# How many file names or fields a message lists.
_NUM_LISTED = 8


def default_documents(text: str, split: str) -> list[str]:
    """The documents of one split of the packaged text.

    Args:
        text: the whole packaged file.
        split: `"calibration"` or `"evaluation"`.

    Returns:
        The documents, in order.

    Example:
        >>> default_documents("\\n\\f\\n".join("abcdefg"), "calibration")
        ['a', 'b']
    """
    documents = text.strip().split(_DOCUMENT_MARK)
    cut = len(documents) - _NUM_EVALUATION_DOCUMENTS
    return documents[:cut] if split == "calibration" else documents[cut:]


def file_pieces(path: Path) -> Iterator[str]:
    """A text file piece by piece.

    Args:
        path: a UTF-8 text file.

    Yields:
        At most a million characters each.

    Raises:
        DataError: the file cannot be opened or is not UTF-8 text.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            while piece := file.read(_PIECE_CHARS):
                yield piece
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); "
            "save it as UTF-8 or name another file"
        ) from error
    except OSError as error:
        raise DataError(
            f"cannot read {path}: {error.strerror}; check its permissions or name another file"
        ) from error


def json_documents(path: Path, field: str) -> Iterator[str]:
    """The texts of a file of JSON objects.

    Args:
        path: one object per line, or (for `.json`) a list of objects.
        field: which field holds the text; an object may also be a bare string.

    Yields:
        One text per object.

    Raises:
        DataError: a line is not JSON, or an object lacks the field; the line is named.
    """
    if path.suffix.lower() == ".json":
        whole = "".join(file_pieces(path))
        if whole.lstrip().startswith("["):
            for index, row in enumerate(_parse(whole, path, None)):
                yield row_text(row, field, f"object {index} of {path}")
            return
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            row = _parse(line, path, number)
            yield row_text(row, field, f"line {number} of {path}")


def open_hub(dataset: str, config: str | None, split: str) -> Iterable[Mapping[str, Any]]:
    """Open a dataset of the `datasets` library as a stream, so that only what is used is fetched.

    Args:
        dataset: its id.
        config: its configuration, or None for the only one.
        split: its split, for example `"train"`.

    Returns:
        The rows; every pass over them starts from the first.

    Raises:
        DataError: there is no such dataset, configuration or split, or it cannot be reached.
        MissingExtraError: the `data` extra is not installed.
    """
    library = require_extra("datasets", "data", f"reading the dataset {dataset}")
    try:
        rows: Iterable[Mapping[str, Any]] = library.load_dataset(
            dataset, config, split=split, streaming=True
        )
    except Exception as error:
        # The library raises a dozen types here, from ValueError to those of its HTTP client.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        named = ":".join(part for part in (dataset, config, split) if part)
        raise DataError(
            f"'{dataset}' is not an existing file, and the dataset {named} cannot be opened: "
            f"{reason}; check the name, or give a .txt or .jsonl file"
        ) from error
    return rows


def row_text(row: object, field: str, where: str) -> str:
    """The text in one object.

    Args:
        row: a mapping, or the text itself.
        field: which field holds the text.
        where: what to call the object in a message.

    Returns:
        The text.

    Raises:
        DataError: there is no such field, or it does not hold a string.

    Example:
        >>> row_text({"body": "a text"}, "text", "line 1")
        Traceback (most recent call last):
        ...
        prunepath.errors.DataError: line 1 has no field 'text'; it has: body. Name one with field=
    """
    if isinstance(row, str):
        return row
    if not isinstance(row, Mapping):
        raise DataError(
            f"{where} is {_a_kind(row)}, not an object; give objects that hold text in "
            f"the field '{field}'"
        )
    if field not in row:
        raise DataError(
            f"{where} has no field '{field}'; it has: {_listed(map(str, row))}. "
            "Name one with field="
        )
    text = row[field]
    if not isinstance(text, str):
        raise DataError(
            f"the field '{field}' of {where} holds {_a_kind(text)}, not text; "
            "name another field with field="
        )
    return text


def missing_file_message(path: Path) -> str:
    """What to say about a name that is neither a file nor a dataset id.

    Args:
        path: the name as the user gave it.

    Returns:
        One sentence with the nearest names that do exist.
    """
    folder = path.parent
    asked = f"'{path}' is neither an existing file nor a dataset id"
    if not folder.is_dir():
        return f"{asked}: there is no folder {folder}; check the path"
    names = sorted(found.name for found in folder.iterdir() if found.is_file())
    close = difflib.get_close_matches(path.name, names, n=1)
    if close:
        return f"{asked}; did you mean '{folder / close[0]}'?"
    held = f"holds: {_listed(names)}" if names else "holds no files"
    return f"{asked}; the folder {folder.resolve().name or folder} {held}"


def _lines(path: Path) -> Iterator[str]:
    """Lines of a file that may be larger than memory."""
    begun = ""
    for piece in file_pieces(path):
        *lines, begun = (begun + piece).split("\n")
        yield from lines
    if begun:
        yield begun


def _parse(text: str, path: Path, number: int | None) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = number or error.lineno
        raise DataError(
            f"line {line} of {path} is not JSON ({error.msg} at column {error.colno}); "
            "mend that line, or name a .txt file"
        ) from error


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _NUM_LISTED} more" if len(every) > _NUM_LISTED else ""
    return ", ".join(every[:_NUM_LISTED]) + more


def _a_kind(value: object) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
