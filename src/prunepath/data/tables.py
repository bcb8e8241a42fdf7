"""Tables: files of rows, dataset ids and iterables become rows of texts with a label.

`read_table` opens whatever the user gave, decides on the columns by the first row (`columns`), and
takes rows. Where fewer rows are wanted than there are, they are drawn from all over the table,
because many data sets are sorted by class.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from prunepath.data.columns import Chosen, Columns, is_header
from prunepath.data.readers import missing_file_message, open_hub
from prunepath.data.table_files import SUFFIXES, Cells, file_rows
from prunepath.errors import DataError, RequestError

__all__ = ["Row", "Table", "read_table"]

# Of a stream, this many times as many rows as are wanted are read before some are drawn.
_SPREAD = 8
# Endings that no dataset id has.
_FILES = SUFFIXES | {".arrow", ".gz", ".parquet", ".zip"}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+){0,2}", re.ASCII)


@dataclass(frozen=True)
class Row:
    """One row.

    Args:
        texts: one text of each text column.
        label: what the label column holds, as it was found; None where there is no such column.
        where: what to call the row in a message.
    """

    texts: tuple[str, ...]
    label: Any
    where: str


@dataclass(frozen=True)
class Table:
    """Rows, and what to call them.

    Args:
        rows: at least one.
        columns: which columns they are from.
        description: where they come from, in words.
        folder: where a file of rows lies, which paths in its rows are relative to.
    """

    rows: tuple[Row, ...]
    columns: Chosen
    description: str
    folder: Path | None = None


@dataclass(frozen=True)
class _Opened:
    """Rows yet unread: `(where, cells)` each; `endless` if they may not end."""

    rows: Iterator[tuple[str, Cells]]
    description: str
    endless: bool = False
    folder: Path | None = None


def read_table(
    data: Any,
    columns: Columns,
    *,
    count: int | None,
    extra: int = 0,
    field: str = "",
    label_field: str = "",
    split: str | None = None,
    labels: bool = False,
    seed: int = 0,
) -> Table:
    """Read rows of one or two texts and a label.

    Args:
        data: one of
            a `.tsv` file (no quoting, as in GLUE) or a `.csv` file, with a header line or without;
            a `.jsonl` or `.json` file of objects; a `.txt` file of one text per line;
            an id of the `datasets` library: `name`, `name:config` or `name:config:split`, streamed;
            an iterable of mappings, tuples or strings: a list, a `datasets.Dataset`, a DataFrame.
        columns: the usual names of the columns.
        count: rows that must be there, drawn at random; None takes all, in their order.
        extra: further rows to take where there are more.
        field: the text column, or two of them separated by a comma; empty: by custom.
        label_field: the label column; empty: by custom.
        split: split of a dataset id (default `"train"`). Files and iterables have none.
        labels: whether every row must have a label.
        seed: of the draw among all rows, and of their order.

    Returns:
        `count` rows, and up to `extra` more.

    Raises:
        DataError: there is nothing to read, too little, or not in these columns.
        RequestError: a split of something that has none.
        MissingExtraError: a dataset id needs `pip install "prunepath[data]"`.

    Example:
        >>> columns = Columns(texts=(("text",),), labels=("label",), by_position={1: 1, 2: 1})
        >>> read_table([("fine", 1), ("poor", 0)], columns, count=None).rows[1].texts
        ('poor',)
    """
    opened = _open(data, columns, field, label_field, split)
    wanted = None if count is None else count + extra
    found = opened.rows
    if opened.endless and wanted is not None:
        found = islice(found, _SPREAD * wanted)
    chosen: Chosen | None = None
    rows: list[Row] = []
    for where, cells in found:
        if chosen is None:
            chosen = columns.choose(
                cells,
                field=field,
                label_field=label_field,
                labels=labels,
                source=opened.description,
            )
        rows.append(_row(cells, chosen, where, labels))
    if chosen is None:
        raise DataError(f"there is no row in {opened.description}; give a source that holds some")
    if wanted is not None:
        if len(rows) < (count or 0):
            raise DataError(
                f"{count} rows were asked for, but {opened.description} has only {len(rows)}; give "
                "more data, or ask for fewer"
            )
        # Drawn also where all are taken: the parts of a search are cut one after the other, and
        # files are often sorted.
        rows = random.Random(seed).sample(rows, min(wanted, len(rows)))
    return Table(tuple(rows), chosen, opened.description, opened.folder)


def _row(cells: Cells, chosen: Chosen, where: str, labels: bool) -> Row:
    for name in (*chosen.texts, chosen.label):
        if name is not None and name not in cells:
            raise DataError(f"{where} has no '{name}', which rows before it have; mend that row")
    texts = []
    for name in chosen.texts:
        if not isinstance(cells[name], str):
            kind = "null" if cells[name] is None else f"a {type(cells[name]).__name__}"
            raise DataError(
                f"the column '{name}' of {where} holds {kind}, not text; name another column with "
                "text_field= (--text-field)"
            )
        texts.append(cells[name])
    label = None if chosen.label is None else cells[chosen.label]
    if labels and (label is None or label == ""):
        raise DataError(f"{where} has no label in '{chosen.label}'; mend or remove that row")
    return Row(tuple(texts), label, where)


def _open(data: Any, columns: Columns, field: str, label_field: str, split: str | None) -> _Opened:
    if isinstance(data, str | os.PathLike):
        path = Path(data).expanduser()
        if path.exists():
            _refuse_split(split, f"the file {path}")
            headed = _header_test(columns, field, label_field)
            return _Opened(file_rows(path, headed), str(path), folder=path.parent)
        if not isinstance(data, str) or not _looks_like_hub_id(data):
            raise DataError(missing_file_message(path))
        return _hub(data, split)
    _refuse_split(split, "rows given as an iterable")
    if hasattr(data, "to_dict") and hasattr(data, "itertuples"):  # a DataFrame iterates over names
        data = data.to_dict("records")
    if not isinstance(data, Iterable) or isinstance(data, Mapping | bytes):
        raise DataError(
            f"the data is a {type(data).__name__}; give a file, a dataset id or an iterable of rows"
        )
    rows = ((f"row {index}", _cells(item, index)) for index, item in enumerate(data))
    return _Opened(rows, "rows given as an iterable", endless=not hasattr(data, "__len__"))


def _header_test(columns: Columns, field: str, label_field: str) -> Callable[[list[str]], bool]:
    return lambda cells: is_header(cells, columns, field, label_field)


def _cells(item: object, index: int) -> Cells:
    """A row of an iterable: a mapping, or a tuple whose columns are numbered from 1."""
    if isinstance(item, str):
        return {"1": item}
    if isinstance(item, Mapping):
        return item
    if isinstance(item, Sequence):
        return {str(number): cell for number, cell in enumerate(item, start=1)}
    raise DataError(
        f"row {index} is a {type(item).__name__}; give rows that are mappings, tuples or strings"
    )


def _hub(name: str, split: str | None) -> _Opened:
    parts = name.split(":")
    if len(parts) == 3:
        if split is not None and split != parts[2]:
            raise RequestError(
                f"the dataset id {name} names the split '{parts[2]}' and split='{split}' another; "
                "give one of them"
            )
        split = parts.pop()
    config = parts[1] if len(parts) == 2 else None
    split = split or "train"
    rows = open_hub(parts[0], config, split)
    description = f"dataset {parts[0]}{f', {config}' if config else ''}, {split} split"
    named = ((f"row {index} of {description}", row) for index, row in enumerate(rows))
    return _Opened(named, description, endless=True)


def _looks_like_hub_id(name: str) -> bool:
    return bool(_HUB_ID.fullmatch(name)) and Path(name).suffix.lower() not in _FILES


def _refuse_split(split: str | None, what: str) -> None:
    if split is not None:
        raise RequestError(f"split='{split}' was asked for, but {what} has no splits; leave it out")
