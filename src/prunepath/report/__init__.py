"""Reports: one table of sizes in four formats, one curve, and progress on a terminal."""

from __future__ import annotations

from prunepath.report.curve import save_curve
from prunepath.report.progress import RichProgress
from prunepath.report.rows import SizeRow, append_row, read_rows
from prunepath.report.table import csv_table, markdown_table, rich_table

__all__ = [
    "RichProgress",
    "SizeRow",
    "append_row",
    "csv_table",
    "markdown_table",
    "read_rows",
    "rich_table",
    "save_curve",
]
