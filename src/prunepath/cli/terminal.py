"""How results are written: lines and tables on a console, JSON on stdout."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prunepath.humanize import format_bytes, format_count

if TYPE_CHECKING:
    from rich.console import Console

    from prunepath.structure.cost import Cost

__all__ = ["named_costs", "new_table", "open_console", "print_json", "print_lines"]

# What a cost is called, how to write it, and where to find it.
_COSTS: tuple[tuple[str, Callable[[float], str], str], ...] = (
    ("parameters", format_count, "params"),
    ("MACs for {stated_for}", format_count, "macs"),
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


def named_costs(cost: Cost, stated_for: str) -> Iterator[tuple[str, Callable[[float], str], str]]:
    """Name, format and field of every cost a model has; one that is 0 is not of its kind.

    Args:
        cost: of the dense model.
        stated_for: what MACs are counted over, in words.
    """
    for name, write, field in _COSTS:
        if getattr(cost, field):
            yield name.format(stated_for=stated_for), write, field


def open_console() -> Console:
    """Stdout, as wide as the terminal; a table in a log file keeps its columns."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=160)


def print_lines(console: Console, *lines: str) -> None:
    """Print lines as they are."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def new_table(*headings: str, left: Sequence[int] = (0,)) -> Any:
    """A table of rich; columns lean right but for those in `left`."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title_justify="left")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index in left else "right")
    return table
