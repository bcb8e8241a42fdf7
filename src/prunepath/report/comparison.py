"""The table and the picture of a comparison: one line per recipe and ratio, seeds put together.

Costs are those counted from the tensors of the cut model. Where several seeds were measured, a
quality is their mean and, after +-, their sample standard deviation.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from prunepath.humanize import format_bytes, format_count, format_number
from prunepath.report.rows import SizeRow
from prunepath.report.table import Heading, markdown_lines, rich_lines

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "ComparisonRow",
    "comparison_legend",
    "comparison_markdown",
    "comparison_series",
    "comparison_table",
]


@dataclass(frozen=True, kw_only=True)
class ComparisonRow(SizeRow):
    """One recipe at one ratio from one seed.

    Args:
        recipe: its name; `"dense"` for the model all were cut from.
        seed: seed of its search.
        asked_ratio: the ratio that was asked for; `ratio` is what was reached.
        request: what it was measured with and from, as a digest.
        distance: mean distance of its answers from the dense model's, without labels, on some of
            the evaluation samples; None where it was not measured.
        statistics_seconds: wall seconds of the pass all methods of one objective share.
        ranking_seconds: wall seconds the method itself took.
        extraction_seconds: wall seconds of allocating, cutting and repairing.
        peak_bytes: memory at the peak of search and extraction; None where it cannot be told.
        choices: file of questions -> answered rightly, in percent.
    """

    recipe: str
    seed: int
    asked_ratio: float
    request: str
    distance: float | None = None
    statistics_seconds: float | None = None
    ranking_seconds: float | None = None
    extraction_seconds: float | None = None
    peak_bytes: int | None = None
    choices: Mapping[str, float] = field(default_factory=dict)


Group = Sequence[ComparisonRow]


def comparison_markdown(rows: Group) -> str:
    """The table in Markdown, with what its columns mean below.

    Args:
        rows: one per recipe, ratio and seed.
    """
    headings, lines = _written(rows)
    legend = "\n".join(comparison_legend(rows))
    return f"{markdown_lines(headings, lines)}\n\n{legend}\n"


def comparison_table(rows: Group, *, title: str | None = None) -> Table:
    """The same for a terminal."""
    headings, lines = _written(rows)
    return rich_lines(headings, lines, title=title)


def comparison_series(rows: Group) -> dict[str, list[SizeRow]]:
    """Recipe -> its sizes, seeds put together, for the curve; the dense model is not in it."""
    series: dict[str, list[SizeRow]] = {}
    for group in _groups(rows):
        first = group[0]
        values = [row.quality for row in group if row.quality is not None]
        if first.recipe == "dense":
            continue
        mean = statistics.fmean(values) if values else None
        params = round(statistics.fmean(row.params for row in group))
        series.setdefault(first.recipe, []).append(replace(first, quality=mean, params=params))
    return series


def _groups(rows: Group) -> list[list[ComparisonRow]]:
    """Rows that differ in their seed alone."""
    groups: dict[tuple[str, float], list[ComparisonRow]] = {}
    for row in rows:
        groups.setdefault((row.recipe, row.asked_ratio), []).append(row)
    return list(groups.values())


def _written(rows: Group) -> tuple[list[Heading], list[list[str]]]:
    """Headings and cells; columns in which nothing was measured are left out."""
    metric = " / ".join(dict.fromkeys(row.metric for row in rows if row.quality is not None))
    questions = dict.fromkeys(name for row in rows for name in row.choices)
    columns: list[tuple[Heading, Callable[[Group], str]]] = [
        (("recipe", True), lambda group: group[0].recipe),
        (("ratio", False), lambda group: f"{group[0].asked_ratio:g}"),
        (("parameters", False), lambda group: format_count(_mean(group, "params"))),
        (("MACs", False), lambda group: format_count(_mean(group, "macs"))),
        (("KV/token", False), _cache),
        ((metric or "quality", False), lambda group: _spread([row.quality for row in group])),
        (("distance", False), lambda group: _spread([row.distance for row in group], _two_digits)),
        *(
            ((name, False), lambda group, n=name: _spread([row.choices.get(n) for row in group]))
            for name in questions
        ),
        (("search s", False), _search),
        (("extract s", False), lambda group: _seconds(group, "extraction_seconds")),
        (("peak memory", False), _peak),
        (("note", True), lambda group: "; ".join(dict.fromkeys(r.note for r in group if r.note))),
    ]
    groups = _groups(rows)
    cells = [[write(group) for _, write in columns] for group in groups]
    used = [index for index in range(len(columns)) if any(line[index] for line in cells)]
    return [columns[i][0] for i in used], [[line[i] for i in used] for line in cells]


def comparison_legend(rows: Group) -> list[str]:
    """What the columns mean, line by line."""
    direction = "higher" if rows[0].higher_is_better else "lower"
    seeds = len({row.seed for row in rows})
    lines = [
        f"{direction.capitalize()} {rows[0].metric} is better.",
        "Distance: how far answers are from the dense model's on some of the evaluation samples,",
        "in the unit of the task's objective (nats where answers are distributions). It tells",
        "recipes apart that the metric does not.",
        "Parameters, MACs and cache are counted from the tensors of the cut models; the ratio is",
        "the fraction of the block parameters that was to be removed.",
        "Search seconds: the pass all methods of one objective share + the method's own.",
    ]
    if seeds > 1:
        lines.append(f"Means over {seeds} seeds, +- their sample standard deviation.")
    return lines


def _mean(group: Group, name: str) -> float:
    return statistics.fmean(getattr(row, name) for row in group)


def _spread(values: Sequence[float | None], write: Callable[[float], str] = format_number) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    if len(known) == 1:
        return write(known[0])
    return f"{write(statistics.fmean(known))} +- {write(statistics.stdev(known))}"


def _two_digits(value: float) -> str:
    return f"{value:.2g}"


def _cache(group: Group) -> str:
    num_bytes = _mean(group, "kv_bytes_per_token")
    return format_bytes(num_bytes) if num_bytes else ""


def _seconds(group: Group, name: str) -> str:
    known = [getattr(row, name) for row in group if getattr(row, name) is not None]
    return f"{statistics.fmean(known):.1f}" if known else ""


def _search(group: Group) -> str:
    parts = [_seconds(group, name) for name in ("statistics_seconds", "ranking_seconds")]
    return " + ".join(part for part in parts if part)


def _peak(group: Group) -> str:
    known = [row.peak_bytes for row in group if row.peak_bytes is not None]
    return format_bytes(max(known)) if known else ""
