"""The table of sizes: for a terminal, for a README, and for a spreadsheet.

Columns in which nothing was measured are left out. The terminal and Markdown tables hold numbers
as people read them; CSV holds them in full.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING

from prunepath.humanize import format_bytes, format_count, format_number
from prunepath.report.rows import SizeRow

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "Heading",
    "csv_table",
    "markdown_lines",
    "markdown_table",
    "rich_lines",
    "rich_table",
]

Heading = tuple[str, bool]
"""What a column is called, and whether it leans to the left."""


@dataclass(frozen=True)
class _Column:
    """A heading, how to write a cell, and which side it leans to."""

    heading: str
    cell: Callable[[SizeRow], str]
    left: bool = False


_METRIC = "metric"  # stands for the name of the metric the rows have
_COLUMNS = (
    _Column("size", lambda row: row.name, left=True),
    _Column("ratio", lambda row: f"{row.ratio:.2f}"),
    _Column("parameters", lambda row: format_count(row.params)),
    _Column("MACs", lambda row: format_count(row.macs)),
    _Column("weights", lambda row: format_bytes(row.weight_bytes)),
    _Column("KV cache/token", lambda row: _cache(row)),
    _Column(_METRIC, lambda row: _measured(row.quality, format_number)),
    _Column("prefill tok/s", lambda row: _measured(row.prefill_tokens_per_second, format_rate)),
    _Column("decode tok/s", lambda row: _measured(row.decode_tokens_per_second, format_rate)),
    _Column("samples/s", lambda row: _measured(row.samples_per_second, format_rate)),
    _Column("note", lambda row: row.note, left=True),
)


def format_rate(per_second: float) -> str:
    """Tokens or samples per second: one decimal below 100, whole numbers above.

    Args:
        per_second: a measured speed.

    Returns:
        The number, with thousands separators.

    Example:
        >>> format_rate(23.456), format_rate(1834.2)
        ('23.5', '1,834')
    """
    return f"{per_second:,.{1 if per_second < 100 else 0}f}"


def markdown_table(rows: Sequence[SizeRow]) -> str:
    """The table in Markdown, numbers to the right.

    Args:
        rows: one per size.

    Returns:
        Lines joined by newlines, without one at the end.

    Example:
        >>> row = SizeRow(name="dense", ratio=0, params=134_515_008, macs=0, weight_bytes=0,
        ...               kv_bytes_per_token=23_040, quality=28.594)
        >>> print(markdown_table([row]).splitlines()[0])
        | size  | ratio | parameters | MACs | weights | KV cache/token | perplexity |
    """
    columns = _used(rows)
    lines = [[column.cell(row) for column in columns] for row in rows]
    return markdown_lines([(column.heading, column.left) for column in columns], lines)


def rich_table(rows: Sequence[SizeRow], *, title: str | None = None) -> Table:
    """The table for a terminal.

    Args:
        rows: one per size.
        title: shown above it.

    Returns:
        A table of rich, to be printed with a rich console.
    """
    columns = _used(rows)
    lines = [[column.cell(row) for column in columns] for row in rows]
    return rich_lines([(column.heading, column.left) for column in columns], lines, title=title)


def markdown_lines(headings: Sequence[Heading], lines: Sequence[Sequence[str]]) -> str:
    """Any table in Markdown.

    Args:
        headings: what a column is called, and whether it leans to the left.
        lines: cells, line by line.

    Returns:
        Lines joined by newlines, without one at the end.
    """
    cells = [[name for name, _ in headings]]
    cells += [[_escaped(cell) for cell in line] for line in lines]
    widths = [max(len(line[index]) for line in cells) for index in range(len(headings))]
    written = [
        _line(
            text.ljust(width) if left else text.rjust(width)
            for text, width, (_, left) in zip(line, widths, headings, strict=True)
        )
        for line in cells
    ]
    rule = _line(
        "-" * width if left else "-" * (width - 1) + ":"
        for width, (_, left) in zip(widths, headings, strict=True)
    )
    return "\n".join([written[0], rule, *written[1:]])


def rich_lines(
    headings: Sequence[Heading], lines: Sequence[Sequence[str]], *, title: str | None = None
) -> Table:
    """Any table for a terminal; see `markdown_lines`."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for name, left in headings:
        table.add_column(name, justify="left" if left else "right", no_wrap=not left)
    for line in lines:
        # Text, not str: a name with brackets is not markup.
        table.add_row(*map(Text, line))
    return table


def csv_table(rows: Sequence[SizeRow]) -> str:
    """The table as comma-separated values with full numbers; what was not measured is empty.

    Args:
        rows: one per size.

    Returns:
        A header of field names and one line per row, each ended by a newline.
    """
    text = io.StringIO()
    names = [field.name for field in fields(SizeRow)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def _used(rows: Sequence[SizeRow]) -> list[_Column]:
    names = dict.fromkeys(row.metric for row in rows if row.quality is not None)
    heading = " / ".join(names) or "quality"
    return [
        replace(column, heading=heading) if column.heading == _METRIC else column
        for column in _COLUMNS
        if not rows or any(column.cell(row) for row in rows)
    ]


def _cache(row: SizeRow) -> str:
    return format_bytes(row.kv_bytes_per_token) if row.kv_bytes_per_token else ""


def _measured(value: float | None, write: Callable[[float], str]) -> str:
    return "" if value is None else write(value)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
