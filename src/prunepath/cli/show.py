"""What the commands print: results on stdout, as text or as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from prunepath.humanize import format_bytes, format_count, format_number

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from prunepath.api.evaluate import Evaluation
    from prunepath.api.inspect import Inspection
    from prunepath.api.workshop import Extraction
    from prunepath.methods.method import Method
    from prunepath.path import Provenance, SolutionPath
    from prunepath.report.rows import SizeRow
    from prunepath.structure.cost import Cost

__all__ = [
    "curve_text",
    "evaluation_json",
    "evaluation_text",
    "extraction_json",
    "extraction_text",
    "inspection_json",
    "inspection_text",
    "loading_sentence",
    "methods_text",
    "print_json",
    "search_json",
    "search_text",
    "settings_text",
]

# What a cost is called, how to write it, and where to find it.
_COSTS: tuple[tuple[str, Callable[[float], str], str], ...] = (
    ("parameters", format_count, "params"),
    ("MACs for {length} tokens", format_count, "macs"),
    ("weights", format_bytes, "weight_bytes"),
    ("KV cache per token", format_bytes, "kv_bytes_per_token"),
)


def print_json(value: Any) -> None:
    """One JSON object on stdout; infinity and NaN, which JSON has not, become null."""
    import sys

    sys.stdout.write(json.dumps(_plain(value), indent=2, allow_nan=False, default=str) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def search_text(path: SolutionPath, folder: Path) -> None:
    """What a search found, and what to do with it."""
    console = _console()
    made = path.provenance
    _lines(
        console,
        f"path: {_num_units(path)} units of {made.model_id} ordered by '{made.method}' from "
        f"{made.tokens} tokens of {made.data}",
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
        "provenance": _provenance(path.provenance),
    }


def loading_sentence(layout: str, kinds: Sequence[str]) -> str:
    """Where the result of an extraction will load, as far as the request says it."""
    if layout == "uniform" and not kinds:
        return (
            "layout uniform: every layer the same size; it will load in stock transformers and in "
            "what reads its files"
        )
    if layout == "uniform":
        return (
            "layout uniform: it will load in stock transformers if only whole heads and channels "
            "are cut, else with prunepath"
        )
    return (
        f"layout {layout}: it will load with prunepath (prunepath.load, or the Auto classes after "
        "`import prunepath`); --layout uniform loads everywhere"
    )


def extraction_text(made: Extraction) -> None:
    """What an extraction reached, how it was repaired and checked, and how to go on."""
    console = _console()
    _lines(console, f"reached {made.allocation}", _refit_sentence(made.refit))
    if made.latency_seconds is not None:
        _lines(console, f"measured: {1e3 * made.latency_seconds:.3g} ms for one forward pass")
    check = made.verification
    if check is not None:
        _lines(
            console,
            f"checked: read back in a fresh process with {check.loader}, the logits differ by at "
            f"most {check.difference:.2g} (allowed {check.allowed:.2g})",
        )
    length = made.allocation.options.sequence_length
    _cost_table(console, made.allocation.dense, made.allocation.cost, length)
    _lines(console, "seconds: " + ", ".join(f"{k} {v:.1f}" for k, v in made.seconds.items()))
    if made.folder is not None and check is not None:
        _lines(console, f"written to {made.folder}", *_next_commands(made.folder, check.loader))


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
        "sequence_length": asked.options.sequence_length,
        "cost": vars(asked.cost),
        "dense": vars(asked.dense),
        "loader": None if check is None else check.loader,
        "difference": None if check is None else check.difference,
        "refit": dict(made.refit),
        "seconds": dict(made.seconds),
        "latency_seconds": made.latency_seconds,
    }


def inspection_text(found: Inspection) -> None:
    """What can be cut, what one unit costs, and what is left alone."""
    from rich.text import Text

    console = _console()
    structure = found.structure
    _lines(
        console,
        f"{found.source}: {structure.model_type}, {structure.num_layers} layers, "
        f"{format_count(found.cost.params)} parameters, {format_count(structure.block_params)} of "
        "them in the layers",
    )
    if found.provenance is not None:
        made = found.provenance
        _lines(
            console,
            f"a solution path of '{made.model_id}' (weights {made.model_fingerprint[:12]}), method "
            f"'{made.method}', {made.tokens} tokens of {made.data}, objective {made.objective}, "
            f"seed {made.seed}",
        )
    length = found.sequence_length
    headings = ("unit kind", "groups", "units", "widths", "parameters", f"MACs ({length} tokens)")
    table = _table(*headings, "weights", "KV/token", "runs in")
    for kind in found.kinds:
        table.add_row(
            *(
                Text(cell)
                for cell in (
                    kind.kind,
                    str(kind.groups),
                    f"{kind.units:,}",
                    _widths(kind.lanes, kind.widths),
                    format_count(kind.unit.params),
                    format_count(kind.unit.macs),
                    format_bytes(kind.unit.weight_bytes),
                    format_bytes(kind.unit.kv_bytes_per_token),
                    "transformers" if kind.runs_natively else "prunepath",
                )
            )
        )
    table.title = "can be cut (costs are of one unit)"
    console.print(table)
    table = _table("module", "modules", "parameters", "why", left=(0, 3))
    table.title = "left alone"
    for name, (modules, params, reason) in _left_alone(found).items():
        table.add_row(*map(Text, (name, str(modules), format_count(params), reason)))
    console.print(table)


def inspection_json(found: Inspection) -> dict[str, Any]:
    """The same for machines, module by module."""
    structure = found.structure
    return {
        "source": found.source,
        "model_type": structure.model_type,
        "family": structure.family,
        "layers": structure.num_layers,
        "block_params": structure.block_params,
        "sequence_length": found.sequence_length,
        "cost": vars(found.cost),
        "kinds": [{**vars(kind), "unit": vars(kind.unit)} for kind in found.kinds],
        "left_alone": [vars(item) for item in structure.left_alone],
        "provenance": None if found.provenance is None else _provenance(found.provenance),
    }


def evaluation_text(found: Evaluation) -> None:
    """Perplexity, speed and cost."""
    console = _console()
    value = found.perplexity
    _lines(
        console,
        f"{found.source}: perplexity {format_number(value.value)} at window {value.window} "
        f"({value.num_tokens} tokens of {found.data})",
    )
    if found.speed is not None:
        speed = found.speed
        _lines(
            console,
            f"speed: {format_number(speed.prefill_tokens_per_second)} tokens/s reading "
            f"{speed.sequence_length} tokens, {format_number(speed.decode_tokens_per_second)} "
            f"tokens/s writing {speed.new_tokens} ({speed.device}, batch {speed.batch_size})",
        )
    if found.cost is not None:
        parts = [
            f"{write(getattr(found.cost, field))} {name.format(length=value.window)}"
            for name, write, field in _COSTS
        ]
        _lines(console, "cost: " + ", ".join(parts))


def evaluation_json(found: Evaluation) -> dict[str, Any]:
    """The same for machines."""
    return {
        "source": found.source,
        "data": found.data,
        "perplexity": vars(found.perplexity),
        "speed": None if found.speed is None else vars(found.speed),
        "cost": None if found.cost is None else vars(found.cost),
    }


def curve_text(rows: Sequence[SizeRow], folder: Path) -> None:
    """The table of a curve."""
    from prunepath.report.table import rich_table

    console = _console()
    console.print(rich_table(rows))
    _lines(console, f"written to {folder / 'curve.csv'} and {folder / 'curve.png'}")


def methods_text(found: Mapping[str, str]) -> None:
    """Names and one line each."""
    width = max(map(len, found))
    _lines(_console(), *(f"{name:<{width}}  {line}" for name, line in found.items()))


def settings_text(method: type[Method]) -> None:
    """A method's settings: name, default and what it does."""
    lines = [f"{method.name}: {method.summary} (objective {method().objective()})"]
    rows = [
        (f"{item.name}={_setting(item.default)}", item.metadata.get("help", ""))
        for item in fields(method.Config)
    ]
    width = max((len(left) for left, _ in rows), default=0)
    lines += [f"  --set {left:<{width}}  {right}".rstrip() for left, right in rows]
    _lines(_console(), *lines)


def _setting(value: Any) -> str:
    """A value as `--set` reads it."""
    return value if isinstance(value, str) else json.dumps(value)


def _console() -> Console:
    from rich.console import Console

    console = Console()
    # A table in a log file keeps its columns; a terminal wraps as it is wide.
    return console if console.is_terminal else Console(width=160)


def _lines(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(*headings: str, left: Sequence[int] = (0,)) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title_justify="left")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index in left else "right")
    return table


def _cost_table(console: Console, dense: Cost, cost: Cost, length: int) -> None:
    table = _table("", "dense", "this model", "kept")
    for name, write, field in _COSTS:
        before, after = getattr(dense, field), getattr(cost, field)
        kept = f"{100 * after / max(1, before):.1f}%"
        table.add_row(name.format(length=length), write(before), write(after), kept)
    console.print(table)


def _refit_sentence(refit: Mapping[str, Any]) -> str:
    rest = [f"{name} {value}" for name, value in refit.items() if name != "kind"]
    return ", ".join([f"refit: {refit['kind']}", *rest])


def _next_commands(folder: Path, loader: str) -> list[str]:
    harness = (
        "lm_eval"
        if loader == "transformers"
        else 'python -c "import prunepath, lm_eval.__main__ as m; m.cli_evaluate()"'
    )
    return [
        f"next: prunepath evaluate {folder}",
        f"      {harness} --model hf --model_args pretrained={folder} --tasks arc_easy",
    ]


def _widths(lanes: int, widths: Mapping[int, int]) -> str:
    """`1536`, or `3 x 32` for three lanes of 32; a range where layers differ."""
    low, high = min(widths), max(widths)
    width = f"{low}" if low == high else f"{low}-{high}"
    return width if lanes == 1 else f"{lanes} x {width}"


def _left_alone(found: Inspection) -> dict[str, tuple[int, int, str]]:
    """Modules with the same name in every layer and the same reason, as one row."""
    rows: dict[str, tuple[int, int, str]] = {}
    for item in found.structure.left_alone:
        name = ".".join("*" if part.isdigit() else part for part in item.module.split("."))
        while name in rows and rows[name][2] != item.reason:
            name += " "
        count, params, _ = rows.get(name, (0, 0, ""))
        rows[name] = (count + 1, params + item.params, item.reason)
    return rows


def _num_units(path: SolutionPath) -> int:
    return sum(group.num_units for group in path.structure.groups)


def _provenance(made: Provenance) -> dict[str, Any]:
    return vars(made)
