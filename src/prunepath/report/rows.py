"""One row per size, kept as JSON lines so that a long measurement can be resumed.

A row is appended in one write and flushed to the disk. If that write is cut short, the file ends
in a line without a newline: reading passes over it, and the next append removes it first.
"""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TypeVar

from prunepath.errors import DataError
from prunepath.files import disk_errors

__all__ = ["SizeRow", "append_row", "read_rows", "read_rows_of"]


@dataclass(frozen=True, kw_only=True)
class SizeRow:
    """One size of a model: what it costs and what was measured.

    Args:
        name: what to call it, for example `"spp, per-layer"`.
        ratio: fraction of the block parameters removed, 0 for the dense model.
        params: parameters, shared ones counted once.
        macs: multiply-accumulates of one forward pass at the stated length, or of one sample.
        weight_bytes: bytes of the weights.
        kv_bytes_per_token: bytes of KV cache per token.
        quality: the task's metric on held-out data, None if not measured.
        metric: what `quality` is: `"perplexity"`, `"accuracy"`, ...
        higher_is_better: which way `quality` is better.
        prefill_tokens_per_second: tokens of prompt read per second, None if not measured.
        decode_tokens_per_second: tokens written per second, None if not measured.
        samples_per_second: samples answered per second, None if not measured.
        note: anything a reader must know.
    """

    name: str
    ratio: float
    params: int
    macs: int
    weight_bytes: int
    kv_bytes_per_token: int
    quality: float | None = None
    metric: str = "perplexity"
    higher_is_better: bool = False
    prefill_tokens_per_second: float | None = None
    decode_tokens_per_second: float | None = None
    samples_per_second: float | None = None
    note: str = ""


R = TypeVar("R", bound=SizeRow)


def append_row(path: str | os.PathLike[str], row: SizeRow) -> None:
    """Add one row at the end of a file of JSON lines; the file is made if it is missing.

    Args:
        path: the `.jsonl` file.
        row: what to add.

    Raises:
        DiskError: the file cannot be written.
    """
    path = Path(path)
    line = json.dumps(asdict(row), ensure_ascii=False) + "\n"
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            file.seek(0)
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())


def read_rows(path: str | os.PathLike[str]) -> list[SizeRow]:
    """Read the rows measured so far; see `read_rows_of`."""
    return read_rows_of(path, SizeRow)


def read_rows_of(path: str | os.PathLike[str], kind: type[R]) -> list[R]:
    """Read the rows measured so far.

    Args:
        path: a file written by `append_row`; a missing file has no rows.
        kind: what a row is.

    Returns:
        The rows in the order they were added. An unfinished last line is passed over.

    Raises:
        DataError: a finished line is not a row; the line is named.
    """
    path = Path(path)
    if not path.exists():
        return []
    *lines, _unfinished = path.read_text(encoding="utf-8").split("\n")
    return [
        _row(line, f"line {number} of {path}", kind)
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _row(line: str, where: str, kind: type[R]) -> R:
    known = {field.name for field in fields(kind)}
    try:
        values = json.loads(line)
        if "perplexity" in values:  # as rows of language models once were
            values["quality"] = values.pop("perplexity")
        unknown = sorted(set(values) - known)
        row = kind(**{name: value for name, value in values.items() if name in known})
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{where} is not a row of a size table ({error}); remove the line or start a new file"
        ) from error
    if unknown:
        warnings.warn(
            f"{where} has the unknown fields {', '.join(unknown)}, which are passed over; "
            "a newer prunepath may have written it",
            stacklevel=3,
        )
    return row
