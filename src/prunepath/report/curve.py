"""The curve of quality against size: the picture that says which size to take.

The task's metric over parameters, both as measured; one line per method or layout, named at its
end instead of in a legend; the dense model as a point and a thin reference line. Where lower is
better, as for perplexity, the axis is logarithmic as soon as a linear one would flatten the good
half into a line.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from prunepath.errors import RequestError
from prunepath.extras import require_extra
from prunepath.files import atomic_write
from prunepath.humanize import format_count, format_number
from prunepath.report.rows import SizeRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["save_curve"]

# Okabe-Ito without its yellow: told apart with every kind of colour vision, and in print.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_MARKERS = ("o", "s", "D", "^", "v", "P")
# Colours come again after six lines, in another stroke.
_STYLES = ("-", (0, (4, 2)), (0, (1, 1.5)))
_INK = "#333333"
_FAINT = "#8a8a8a"
# A linear axis up to this ratio of worst to best, a logarithmic one above.
_LOG_FROM = 3.0
# Vertical distance between two labels at line ends, as a fraction of the axis.
_LABEL_GAP = 0.055


def save_curve(
    path: str | os.PathLike[str],
    series: Mapping[str, Sequence[SizeRow]],
    *,
    dense: SizeRow,
    title: str | None = None,
) -> None:
    """Draw quality against parameters into a PNG file.

    Args:
        path: the file to write; it is replaced as a whole or left as it was.
        series: name -> sizes of one method or layout, in any order. Rows without a
            finite quality are left out. All rows have the metric of the dense one.
        dense: the model all sizes were cut from; its quality may be None.
        title: what the picture shows, in one line.

    Raises:
        RequestError: no row has a quality.
        MissingExtraError: matplotlib is not installed (`pip install "prunepath[plot]"`).
        DiskError: the file cannot be written.
    """
    require_extra("matplotlib", "plot", "drawing a curve")
    measured = {name: _measured(rows) for name, rows in series.items()}
    measured = {name: rows for name, rows in measured.items() if rows}
    if not measured:
        raise RequestError("a curve was asked for, but no size has a quality; measure it first")
    figure = _draw(measured, dense, title)
    with atomic_write(path) as beside:
        figure.savefig(beside, format="png", dpi=160, facecolor="white")


def _measured(rows: Sequence[SizeRow]) -> list[SizeRow]:
    # An infinite perplexity has no place on any axis.
    drawn = [row for row in rows if row.quality is not None and math.isfinite(row.quality)]
    return sorted(drawn, key=lambda row: -row.params)


def _draw(series: Mapping[str, list[SizeRow]], dense: SizeRow, title: str | None) -> Figure:
    # The object interface: no global state of pyplot, no display, safe in threads.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    ends: list[tuple[float, float, str, str]] = []
    for index, (name, rows) in enumerate(series.items()):
        color = _COLORS[index % len(_COLORS)]
        # The first line lies on top: it is the one the picture is about.
        depth = 3 - 0.1 * index
        line = [dense, *rows] if dense.quality is not None else rows
        x = [100 * row.params / dense.params for row in line]
        y = [float(row.quality or 0) for row in line]
        first = len(line) - len(rows)
        style = _STYLES[index // len(_COLORS) % len(_STYLES)]
        axes.plot(
            x, y, color=color, linestyle=style, linewidth=1.8, solid_capstyle="round", zorder=depth
        )
        axes.plot(
            x[first:],
            y[first:],
            linestyle="none",
            marker=_MARKERS[index % len(_MARKERS)],
            markersize=6,
            color=color,
            markeredgecolor="white",
            markeredgewidth=0.8,
            zorder=depth,
        )
        ends.append((x[-1], y[-1], name, color))
    _set_scales(axes, series, dense)
    if dense.quality is not None:
        _mark_dense(axes, dense, dense.quality)
    _label_ends(axes, ends, dense.higher_is_better)
    _style(axes, title)
    return figure


def _set_scales(axes: Axes, series: Mapping[str, list[SizeRow]], dense: SizeRow) -> None:
    """Sizes shrink to the right, so that a line reads as the path of a search does."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    rows = [row for line in series.values() for row in line]
    values = [float(row.quality or 0) for row in rows]
    if dense.quality is not None:
        values.append(dense.quality)
    low, high = min(values), max(values)
    if not dense.higher_is_better and high / max(low, 1e-9) > _LOG_FROM:
        axes.set_yscale("log")
        # Over few decades powers of ten alone would leave two or three ticks.
        steps = (1.0, 2.0, 5.0) if high / low < 50 else (1.0, 3.0) if high / low < 3e4 else (1.0,)
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=steps, numticks=12))
        axes.yaxis.set_minor_formatter(NullFormatter())
        room = high / low
        axes.set_ylim(low / room**0.08, high * room**0.06)
    else:
        span = max(high - low, 0.05 * abs(high))
        axes.yaxis.set_major_locator(MaxNLocator(6))
        # More room on the side of the dense model's line, where its name is.
        below, above = (0.08, 0.1) if dense.higher_is_better else (0.1, 0.08)
        axes.set_ylim(low - below * span, high + above * span)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}%"))
    shares = [100 * row.params / dense.params for row in rows] + [100.0]
    span = max(max(shares) - min(shares), 1.0)
    # Room on the right for the names of the lines.
    axes.set_xlim(max(shares) + 0.04 * span, min(shares) - 0.26 * span)
    axes.set_xlabel(f"parameters, % of dense ({format_count(dense.params)})")
    direction = "higher" if dense.higher_is_better else "lower"
    axes.set_ylabel(f"{dense.metric} ({direction} is better)")


def _tick(value: float) -> str:
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value:,.6g}"


def _mark_dense(axes: Axes, dense: SizeRow, value: float) -> None:
    axes.axhline(value, color=_FAINT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.plot([100], [value], marker="o", markersize=6.5, color=_INK, zorder=4)
    axes.annotate(
        f"{dense.name} {format_number(value)}",
        (1, value),
        xycoords=("axes fraction", "data"),
        # On the good side of the line: the sizes lie on the other.
        xytext=(-4, 4 if dense.higher_is_better else -4),
        textcoords="offset points",
        ha="right",
        va="bottom" if dense.higher_is_better else "top",
        fontsize=8.5,
        color=_FAINT,
    )


def _label_ends(
    axes: Axes, ends: Sequence[tuple[float, float, str, str]], higher_is_better: bool
) -> None:
    """Name every line at its last point, moved apart where two names would overlap."""
    transform = axes.transData + axes.transAxes.inverted()
    points = [transform.transform((x, y)) for x, y, _, _ in ends]
    heights = [float(point[1]) for point in points]
    # Away from the dense model's line, which has its own name: up, or down where that is worse.
    heights = (
        [1 - y for y in _spread([1 - y for y in heights])] if higher_is_better else _spread(heights)
    )
    for point, height, (_, _, name, color) in zip(points, heights, ends, strict=True):
        axes.text(
            float(point[0]) + 0.016,
            height,
            name,
            transform=axes.transAxes,
            ha="left",
            va="center",
            fontsize=9.5,
            color=color,
        )


def _spread(heights: Sequence[float]) -> list[float]:
    """Push neighbours apart evenly until all are a label's height from each other."""
    spread = list(heights)
    order = sorted(range(len(spread)), key=spread.__getitem__)
    # Each round settles at least one pair; the bound only matters if there is no room for all.
    for _ in range(20 * len(spread)):
        moved = False
        for lower, upper in pairwise(order):
            short = _LABEL_GAP - (spread[upper] - spread[lower])
            if short > 1e-6:
                spread[lower] -= short / 2
                spread[upper] += short / 2
                moved = True
        if not moved:
            break
    # Names stay off the reference line of the dense model, which has its own name there.
    lift = max(0.0, _LABEL_GAP + 0.04 - min(spread))
    return [height + lift for height in spread]


def _style(axes: Axes, title: str | None) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_FAINT)
    axes.tick_params(colors=_INK, labelsize=9.5, length=3)
    axes.tick_params(which="minor", length=0)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_fontsize(10.5)
        label.set_color(_INK)
    if title is not None:
        axes.set_title(title, loc="left", fontsize=11.5, color=_INK, pad=10)
