"""What `search`, `extract` and `curve` print: results on stdout, as text or as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prunepath.cli.terminal import named_costs, new_table, open_console, print_json, print_lines

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from prunepath.allocation.allocate import Allocation
    from prunepath.api.workshop import Extraction
    from prunepath.path import SolutionPath
    from prunepath.report.comparison import ComparisonRow
    from prunepath.report.rows import SizeRow

__all__ = [
    "comparison_text",
    "curve_text",
    "extraction_json",
    "extraction_text",
    "print_json",
    "search_json",
    "search_text",
]


def search_text(path: SolutionPath, folder: Path) -> None:
    """What a search found, and what to do with it."""
    console = open_console()
    made = path.provenance
    print_lines(
        console,
        f"path: {_num_units(path)} units of {made.model_id} ordered by '{made.method}' from "
        f"{made.calibration_size} of {made.data}",
        f"written to {folder}",
        f"next: prunepath extract {folder} --params 70% -o DIR",
    )


def search_json(path: SolutionPath, folder: Path) -> dict[str, Any]:
    """The same for machines."""
    return {
        "path": str(folder),
        "units": _num_units(path),
        "units_by_kind": {
            kind: sum(group.num_units for group in path.structure.of_kind(kind))
            for kind in path.structure.kinds
        },
        "provenance": vars(path.provenance),
    }


def extraction_text(made: Extraction) -> None:
    """What an extraction reached, how it was repaired and checked, and how to go on."""
    console = open_console()
    lines = [f"reached {made.allocation}", _damage_sentence(made.allocation)]
    if made.allocation.measured:
        lines.append("measured by the rule: " + _listed(made.allocation.measured))
    if made.rearranged:
        lines.append("rearranged: " + _listed(made.rearranged))
    print_lines(console, *lines, _refit_sentence(made.refit))
    if made.latency_seconds is not None:
        print_lines(console, f"measured: {1e3 * made.latency_seconds:.3g} ms for one forward pass")
    check = made.verification
    if check is not None:
        print_lines(
            console,
            f"checked: read back in a fresh process with {check.loader}, the answers differ by at "
            f"most {check.difference:.2g} (allowed {check.allowed:.2g})",
        )
    _cost_table(console, made)
    print_lines(console, "seconds: " + ", ".join(f"{k} {v:.1f}" for k, v in made.seconds.items()))
    if made.folder is not None and check is not None:
        print_lines(console, f"written to {made.folder}", *_next_commands(made))


def extraction_json(made: Extraction) -> dict[str, Any]:
    """The same for machines."""
    asked, check = made.allocation, made.verification
    return {
        "output": None if made.folder is None else str(made.folder),
        "budget": str(asked.budget),
        "metric": asked.budget.metric,
        "limit": asked.limit,
        "reached": asked.reached,
        "ratio": asked.ratio,
        "layout": asked.options.layout,
        "rule": asked.options.rule,
        "rule_set": dict(asked.options.rule_set),
        "damage_kept": dict(asked.damage_kept),
        "measured": dict(asked.measured),
        "rearranged": dict(made.rearranged),
        "tokens": None if asked.tokens is None else asked.tokens.to_record(),
        "task": made.task,
        "sequence_length": asked.options.sequence_length,
        "cost": vars(asked.cost),
        "dense": vars(asked.dense),
        "loader": None if check is None else check.loader,
        "difference": None if check is None else check.difference,
        "refit": dict(made.refit),
        "taken_from_recipe": dict(made.taken),
        "seconds": dict(made.seconds),
        "latency_seconds": made.latency_seconds,
    }


def curve_text(rows: Sequence[SizeRow], folder: Path) -> None:
    """The table of a curve."""
    from prunepath.report.table import rich_table

    console = open_console()
    console.print(rich_table(rows))
    print_lines(console, f"written to {folder / 'curve.csv'} and {folder / 'curve.png'}")


def comparison_text(rows: Sequence[ComparisonRow], folder: Path) -> None:
    """The table of a comparison."""
    from prunepath.report.comparison import comparison_legend, comparison_table

    console = open_console()
    console.print(comparison_table(rows))
    print_lines(console, *comparison_legend(rows))
    print_lines(console, f"written to {folder / 'compare.md'} and {folder / 'compare.png'}")


def _cost_table(console: Console, made: Extraction) -> None:
    dense, cost = made.allocation.dense, made.allocation.cost
    table = new_table("", "dense", "this model", "kept")
    for name, write, field in named_costs(dense, made.stated_for):
        before, after = getattr(dense, field), getattr(cost, field)
        table.add_row(name, write(before), write(after), f"{100 * after / max(1, before):.1f}%")
    console.print(table)


def _refit_sentence(refit: Mapping[str, Any]) -> str:
    rest = {name: value for name, value in refit.items() if name != "kind"}
    return f"refit: {refit['kind']}" + (f", {_listed(rest)}" if rest else "")


def _damage_sentence(allocation: Allocation) -> str:
    """What a rule makes large; beside another rule, what the order keeps of it."""
    kept, rule = allocation.damage_kept, allocation.options.rule
    beside = "" if rule == "order" else f" (by the order {kept['order']:.6g})"
    return f"damage kept by the rule {rule}: {kept[rule]:.6g}{beside}"


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _next_commands(made: Extraction) -> list[str]:
    assert made.verification is not None
    if made.task != "causal-lm":
        return [f"next: prunepath evaluate {made.folder} --data DATA"]
    harness = (
        "lm_eval"
        if made.verification.loader == "transformers"
        else 'python -c "import prunepath, lm_eval.__main__ as m; m.cli_evaluate()"'
    )
    return [
        f"next: prunepath evaluate {made.folder}",
        f"      {harness} --model hf --model_args pretrained={made.folder} --tasks arc_easy",
    ]


def _num_units(path: SolutionPath) -> int:
    return sum(group.num_units for group in path.structure.groups)
