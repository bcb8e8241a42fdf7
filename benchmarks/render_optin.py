"""The page's sections on OPTIN: what its scores cost, and what its cuts are worth."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.models import MODELS
from benchmarks.optin_quality import BUDGET, METHODS, REFITS

__all__ = ["cost_section", "quality_section"]

Row = dict[str, Any]
_CUTS = {"paper": "heads and channels", "default": "channels and coordinates"}


def cost_section(rows: list[Row]) -> list[str]:
    """Lines on time and memory of the scores; none where nothing was measured."""
    lines = [line for real in MODELS.values() for line in _cost(real, rows)]
    if not lines:
        return []
    return [
        "## OPTIN: cost of the scores",
        "",
        "The released loop removes every whole head and FFN channel in a forward pass of its own,",
        "hooks set anew for each; some of them are timed, evenly over the layers, and the total is",
        "extrapolated. The library's scores (mode `hybrid`) are of all units of all kinds, and",
        "in a second line of the same heads and channels alone, every head measured exactly, on",
        "the same samples, with the model loaded and its structure known; the pass that collects",
        "moments for the refit is another matter and not counted. Batches are as large as the",
        "released ones; the loop and the forward pass have texts padded to the longest of the",
        "batch, the scores run texts with others of their length. Memory is resident bytes of",
        "a process of its own at the peak, the loaded model included; `added` is what a plain",
        "forward pass over the whole batch, and scoring, add to the loaded model.",
        "",
        "| model | samples | threads | forward pass (s) | released loop (s) | scores (s) "
        "| in forward passes | loop / scores | units scored (removed one by one) "
        "| peak, forward | peak, scores | ratio | added, forward | added, scores |",
        "|" + "---|" * 14,
        *lines,
        "",
    ]


def _cost(real: Any, rows: list[Row]) -> list[str]:
    """A line for each way to score, from the newest rows over equally many samples."""
    own = [row for row in rows if row["model"] == real.title]
    if not own:
        return []
    samples = own[-1]["samples"]
    parts = {row["part"]: row for row in own if row["samples"] == samples}
    if not {"dense", "naive"} <= parts.keys():
        return []
    return [
        _cost_line(real.title, parts["dense"], parts["naive"], parts[part])
        for part in ("scores", "same scores")
        if part in parts
    ]


def _cost_line(title: str, dense: Row, naive: Row, scores: Row) -> str:
    samples = scores["samples"]
    each = f"{samples} images" if scores["tokens"] is None else f"{samples} x {scores['tokens']}"
    loop = naive["seconds"] / scores["seconds"]
    return (
        f"| {title} | {each} | {scores['threads']} | {dense['seconds']:.2f} "
        f"| {naive['seconds']:,.0f} | {scores['seconds']:.0f} "
        f"| {scores['seconds'] / dense['seconds']:.0f} | {loop:.0f} "
        f"| {scores['units']:,} ({scores['exact']:,}) "
        f"| {_mb(dense['peak_bytes'])} | {_mb(scores['peak_bytes'])} "
        f"| {scores['peak_bytes'] / dense['peak_bytes']:.2f} "
        f"| {_mb(dense['added_bytes'])} | {_mb(scores['added_bytes'])} |"
    )


def _mb(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def quality_section(rows: list[Row]) -> list[str]:
    """Lines on accuracy at the same budget; none where nothing was measured."""
    tables = [line for real in MODELS.values() for line in _table(real, rows)]
    if not tables:
        return []
    return [
        f"## OPTIN and Fisher at {BUDGET} of the MACs",
        "",
        "float32, no training, no labels; both methods rank the same samples, of which OPTIN",
        "scores the first 32 (mode `hybrid`). `heads and channels` cuts whole heads and FFN",
        "channels of any number, at least one of each in every layer; `channels and",
        "coordinates` is what the library cuts by default. Refit `scales` is one least-squares",
        "number per unit (the tuning of Kwon et al.), `rearranged` their exchange of units;",
        "`knapsack` the least sum of damages under the budget, otherwise units leave by damage",
        "per cost. Accuracy on all samples of the evaluation set; in brackets the distance of",
        "the answers from the dense ones in nats. Over several seeds, which draw samples,",
        "compared rows, probes and gradients: mean and standard deviation, with their number.",
        "",
        *tables,
    ]


def _table(real: Any, rows: list[Row]) -> list[str]:
    own = [row for row in rows if row["model"] == real.title]
    dense = next((row for row in own if row["method"] == "dense"), None)
    cuts = [row for row in own if row["method"] != "dense"]
    if dense is None or not cuts:
        return []
    counts = cuts[-1]["counts"]
    cuts = [row for row in cuts if row["counts"] == counts]
    lines = [
        f"### {real.title}",
        "",
        f"{counts['windows']} samples for gradients, {counts['moments']} more for moments, "
        f"{counts['refit']} of the first aimed at by refits. Dense: {dense['value']:.2f} on "
        f"{dense['samples']} samples.",
        "",
        f"| units cut | method | {' | '.join(_said(refit) for refit in REFITS)} |",
        "|---|---|" + "---|" * len(REFITS),
    ]
    for cut, words in _CUTS.items():
        here = [row for row in cuts if row["cut"] == cut]
        ways = sorted({_way(row) for row in here}, key=_place)
        for way in ways:
            same = [row for row in here if _way(row) == way]
            cells = [_cell([row for row in same if row["refit"] == refit]) for refit in REFITS]
            lines.append(f"| {words} | {_named(way)} | {' | '.join(cells)} |")
    return [*lines, ""]


Way = tuple[str, str, bool, float, bool]


def _way(row: Row) -> Way:
    return tuple(row[name] for name in ("method", "rule", "rearrange", "token_share", "scored"))


def _place(way: Way) -> tuple[object, ...]:
    method, rule, rearrange, share, scored = way
    return share, scored, rule != "order", rearrange, METHODS.index(method)


def _named(way: Way) -> str:
    method, rule, rearrange, share, scored = way
    words = [method, *(["rearranged"] if rearrange else []), *([rule] if rule != "order" else [])]
    where = " where scored" if scored else ""
    merging = [f"{share:.0%} of the saving by merging patches{where}"] if share else []
    return ", ".join([*words, *merging])


def _said(refit: str) -> str:
    return "no refit" if refit == "none" else refit


def _cell(rows: list[Row]) -> str:
    if not rows:
        return ""
    values = [row["value"] for row in rows]
    distance = f"{statistics.mean(row['distance'] for row in rows):.2g}"
    if len(values) == 1:
        return f"{values[0]:.2f} ({distance})"
    spread = statistics.stdev(values)
    return f"{statistics.mean(values):.2f} ± {spread:.2f}, n={len(values)} ({distance})"
