"""What `inspect` and `evaluate` print: results on stdout, as text or as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prunepath.cli.terminal import named_costs, new_table, open_console, print_json, print_lines
from prunepath.humanize import format_bytes, format_count, format_number

if TYPE_CHECKING:
    from prunepath.api.evaluate import Evaluation
    from prunepath.api.inspect import Inspection
    from prunepath.evaluation.speed import Speed
    from prunepath.evaluation.throughput import Throughput

__all__ = [
    "evaluation_json",
    "evaluation_text",
    "inspection_json",
    "inspection_text",
    "print_json",
]


def inspection_text(found: Inspection) -> None:
    """What can be cut, what one unit costs, and what is left alone."""
    from rich.text import Text

    console = open_console()
    structure = found.structure
    print_lines(
        console,
        f"{found.source}: {structure.model_type} for {found.task}, {structure.num_layers} layers, "
        f"{format_count(found.cost.params)} parameters, {format_count(structure.block_params)} of "
        "them in the layers",
    )
    if found.provenance is not None:
        made = found.provenance
        print_lines(
            console,
            f"a solution path of '{made.model_id}' (weights {made.model_fingerprint[:12]}), method "
            f"'{made.method}', {made.calibration_size} of {made.data}, objective {made.objective}, "
            f"seed {made.seed}",
        )
    if found.tokens is not None:
        print_lines(console, f"merges tokens while it runs: {found.tokens}")
    macs = f"MACs ({found.stated_for})"
    headings = ("unit kind", "groups", "units", "widths", "parameters", macs)
    table = new_table(*headings, "weights", "KV/token", "runs in")
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
    table = new_table("module", "modules", "parameters", "why", left=(0, 3))
    table.title = "left alone"
    for name, (modules, params, reason) in _left_alone(found).items():
        table.add_row(*map(Text, (name, str(modules), format_count(params), reason)))
    console.print(table)


def inspection_json(found: Inspection) -> dict[str, Any]:
    """The same for machines, module by module."""
    structure = found.structure
    return {
        "source": found.source,
        "task": found.task,
        "model_type": structure.model_type,
        "family": structure.family,
        "layers": structure.num_layers,
        "block_params": structure.block_params,
        "sequence_length": found.sequence_length,
        "cost": vars(found.cost),
        "tokens": None if found.tokens is None else found.tokens.to_record(),
        "kinds": [{**vars(kind), "unit": vars(kind.unit)} for kind in found.kinds],
        "left_alone": [vars(item) for item in structure.left_alone],
        "provenance": None if found.provenance is None else vars(found.provenance),
    }


def evaluation_text(found: Evaluation) -> None:
    """Metric, speed and cost."""
    console = open_console()
    print_lines(console, _metric_sentence(found))
    if found.speed is not None:
        print_lines(console, _speed_sentence(found.speed))
    if found.cost is not None:
        costs = named_costs(found.cost, found.stated_for)
        parts = [f"{write(getattr(found.cost, field))} {name}" for name, write, field in costs]
        print_lines(console, "cost: " + ", ".join(parts))


def _metric_sentence(found: Evaluation) -> str:
    metric = found.metric
    if found.task == "causal-lm":
        value = found.perplexity
        return (
            f"{found.source}: perplexity {format_number(value.value)} at window {value.window} "
            f"({value.num_tokens} tokens of {found.data})"
        )
    others = "".join(f", {name} {format_number(other)}" for name, other in metric.others.items())
    return (
        f"{found.source}: {metric.name} {format_number(metric.value)}{others} "
        f"({metric.samples} samples of {found.data})"
    )


def _speed_sentence(speed: Speed | Throughput) -> str:
    where = f"({speed.device}, batch {speed.batch_size})"
    if hasattr(speed, "samples_per_second"):
        return f"speed: {format_number(speed.samples_per_second)} samples/s {where}"
    return (
        f"speed: {format_number(speed.prefill_tokens_per_second)} tokens/s reading "
        f"{speed.sequence_length} tokens, {format_number(speed.decode_tokens_per_second)} "
        f"tokens/s writing {speed.new_tokens} {where}"
    )


def evaluation_json(found: Evaluation) -> dict[str, Any]:
    """The same for machines."""
    result = {
        "source": found.source,
        "task": found.task,
        "data": found.data,
        "metric": vars(found.metric),
        "speed": None if found.speed is None else vars(found.speed),
        "cost": None if found.cost is None else vars(found.cost),
    }
    if found.task == "causal-lm":
        result["perplexity"] = vars(found.perplexity)
    return result


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
