"""The page's sections on tasks other than language, from `tasks.jsonl` and `task_speed.jsonl`.

A table never mixes rows whose searches saw different numbers of samples: it shows those that saw
as many as the newest row of its model.
"""

from __future__ import annotations

from typing import Any

from benchmarks.models import MODELS, RealModel
from benchmarks.tasks import METHODS, REFITS

__all__ = ["speed_section", "tasks_section"]

Row = dict[str, Any]

_COUNTS = ("windows", "moment_windows")


def tasks_section(rows: list[Row]) -> list[str]:
    """Lines on quality, model by model; none where nothing was measured."""
    tables = [line for real in MODELS.values() for line in _table(real, rows)]
    if not tables:
        return []
    return [
        "## Other tasks",
        "",
        "Real models, float32, no training. Every method searches for itself, without labels; rows",
        "without a refit cut the same path, all others have the `sequential` refit, whose strength",
        "is chosen on further samples of the same file. Layouts are `per-layer`,",
        "widths multiples of 8, and a ratio is the removed fraction of the block parameters. In",
        "brackets: the mean distance of the cut model's answers from the dense model's, for",
        "classes the divergence in nats and for embeddings half the mean squared difference of",
        "similarities. Seconds are those of the search and of one extraction in memory, on the",
        "machine the rows are from, where other measurements ran beside them: up to a factor of",
        "three is chance.",
        "",
        *tables,
    ]


def _table(real: RealModel, rows: list[Row]) -> list[str]:
    own = [row for row in rows if row["model"] == real.title]
    cuts = [row for row in own if row["method"] != "dense"]
    if not cuts:
        return []
    newest = cuts[-1]
    cuts = [row for row in cuts if all(row[name] == newest[name] for name in _COUNTS)]
    ratios = sorted({row["ratio"] for row in cuts})
    lines = [
        f"### {real.title}: {newest['metric']}",
        "",
        f"Calibration: `{real.calibration}`, {newest['windows']} samples for gradients and up to",
        f"{newest['moment_windows']} more, forward only, for second moments. Evaluation:",
        f"`{real.evaluation}`, {newest['samples']} samples; distances on "
        f"{newest['distance_samples']} rows of input.",
        f"Dense: {newest['dense']:.2f}.",
        "",
        f"| method | {' | '.join(f'{ratio:g}' for ratio in ratios)} | search (s) | extract (s) |",
        "|---|" + "---|" * (len(ratios) + 2),
    ]
    methods = dict.fromkeys((*METHODS, *(row["method"] for row in cuts)))
    for method in methods:
        for refit in REFITS:
            of = [row for row in cuts if row["method"] == method and row["refit"] == refit]
            if of:
                lines.append(_line(method, refit, ratios, of))
    return [*lines, ""]


def _line(method: str, refit: str, ratios: list[float], rows: list[Row]) -> str:
    found = {row["ratio"]: row for row in rows}
    cells = [_cell(found.get(ratio)) for ratio in ratios]
    refitted = refit != "none"
    search = f"{rows[-1]['search_seconds']:.0f}" if refitted else ""
    mean = sum(row["extract_seconds"] for row in found.values()) / len(found)
    name = method if refitted else f"{method}, no refit"
    bold = "**" if name == "spp" else ""
    return f"| {bold}{name}{bold} | {' | '.join(cells)} | {search} | {mean:.1f} |"


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    beyond = row["reached_ratio"] - row["ratio"] > 0.01  # coarse units overshoot the ratio
    more = f"; at {row['reached_ratio']:.3f}" if beyond else ""
    return f"{row['value']:.2f} ({row['distance']:.2g}{more})"


def speed_section(rows: list[Row]) -> list[str]:
    """Lines on the speed of cut models; none where nothing was measured."""
    if not rows:
        return []
    lines = [
        "## Speed of cut models",
        "",
        "Wall time of one forward pass, float32, on the CPU; 40% of the MACs of the blocks are",
        "removed, or a little more where units are coarse. Dense model, cut model and the dense",
        "model without its layers take turns in one process, after two rounds that do not count;",
        "every figure is a median over rounds. The time of the blocks is the total less that of",
        "the model without layers; their ideal speed-up is dense over cut MACs, and the share is",
        "measured over ideal. In the order `even` damage is random and in proportion to MACs, so",
        "that every kind and layer loses about as much; any other order is that of the method it",
        "names.",
        "",
        "| model | shape | threads | order | layout | multiple | MACs removed | dense (ms) "
        "| cut (ms) | speed-up | of the blocks | ideal | share |",
        "|" + "---|" * 13,
    ]
    for row in rows:
        each = "images" if row["tokens"] is None else f"x {row['tokens']} tokens"
        lines.append(
            f"| {row['model']} | {row['samples']} {each} | {row['threads']} | {row['order']} "
            f"| {row['layout']} | {row['multiple']} | {100 * row['removed']:.1f}% "
            f"| {1e3 * row['dense_seconds']:.0f} | {1e3 * row['cut_seconds']:.0f} "
            f"| {row['speedup']:.2f} | {row['block_speedup']:.2f} | {row['ideal']:.2f} "
            f"| {row['share']:.2f} |"
        )
    return [*lines, ""]
