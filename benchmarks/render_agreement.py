"""The section on how well OPTIN's estimates agree with removing units one by one."""

from __future__ import annotations

from typing import Any

__all__ = ["agreement_section"]

Row = dict[str, Any]
_MODELS = {
    "minilm": "minilm-l6-sst2",
    "vit": "vit-small-imagenette",
    "smollm2": "SmolLM2-135M-Instruct",
}


def agreement_section(rows: list[Row]) -> list[str]:
    """Lines of the section; none where nothing was measured."""
    newest = {(row["model"], row["probes"], row["kind"], row["term"]): row for row in rows}
    shares: dict[tuple[str, int], dict[float, Row]] = {}
    for row in rows:
        if "hybrid" in row:
            shares.setdefault((row["model"], row["probes"]), {})[row["exact_share"]] = row
    runs = sorted({(model, probes) for model, probes, *_ in newest})
    if not runs:
        return []
    lines = [
        "## OPTIN: estimates against exact scores",
        "",
        "A random sample of the units of every place is removed and measured exactly, one by one;",
        "`gn` estimates all units from so many probes. Spearman correlation over all sampled units",
        "of a kind / mean over the places of one kind, of both terms of the score. Mode `hybrid`",
        "measures heads and sub-layers exactly, whatever is estimated. `picks`: share of the units",
        "that estimates alone keep among those exact scores keep at 60% of the MACs of the finest",
        "units, and that `hybrid` keeps with so many of these measured (`exact_share`); decided on",
        "a sample of the units near the cut, measured exactly, each standing for several (where no",
        "`hybrid` is stated: on the sample of all units).",
        "",
        "| model | probes | kind | L_MD: all / within | L_KD: all / within | units "
        "| picks: gn / hybrid |",
        "|---|---|---|---|---|---|---|",
    ]
    for model, probes in runs:
        kinds = [k for m, p, k, t in newest if (m, p) == (model, probes) and t == "md"]
        picks = newest.get((model, probes, "all", "picks"))
        for number, kind in enumerate(kinds):
            md, kd = (newest[model, probes, kind, term] for term in ("md", "kd"))
            last = (
                _picks(picks, shares.get((model, probes), {}))
                if number == 0 and picks is not None
                else ""
            )
            title = f"{_MODELS[model]} | {probes}" if number == 0 else " | "
            lines.append(
                f"| {title} | {kind} | {_pair(md)} | {_pair(kd)} | {md['units_compared']:.0f} "
                f"| {last} |"
            )
    return [*lines, ""]


def _picks(row: Row, by_share: dict[float, Row]) -> str:
    hybrid = [
        f"{100 * by_share[share]['hybrid']:.1f} % ({100 * share:g} % measured)"
        for share in sorted(by_share)
    ]
    return " / ".join([f"{100 * row['picks']:.1f} %", *hybrid])


def _pair(row: Row) -> str:
    within = "" if row.get("within") is None else f" / {row['within']:.3f}"
    return f"{row['spearman']:.3f}{within}"
