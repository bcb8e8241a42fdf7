"""Rows survive interruption: what was finished is read, what was not is forgotten."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from prunepath.errors import DataError, DiskError
from prunepath.report import SizeRow, append_row, read_rows


def row(name: str = "dense", **changes: Any) -> SizeRow:
    values: dict[str, Any] = {
        "name": name,
        "ratio": 0.0,
        "params": 134_515_008,
        "macs": 5,
        "weight_bytes": 269_030_016,
        "kv_bytes_per_token": 23_040,
    }
    return SizeRow(**{**values, **changes})


def test_round_trip_in_order(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rows.jsonl"
    rows = [row(), row("small", quality=35.21, note="caf\u00e9 | a\nb"), row("x", ratio=0.3)]
    assert read_rows(path) == []
    for one in rows:
        append_row(path, one)
    assert read_rows(path) == rows
    assert path.read_text(encoding="utf-8").count("\n") == 3


def test_infinite_perplexity_survives(tmp_path: Path) -> None:
    append_row(tmp_path / "r", row(quality=math.inf))
    assert read_rows(tmp_path / "r")[0].quality == math.inf


def test_unfinished_line_is_passed_over_and_then_replaced(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_row(path, row("one"))
    with path.open("a") as file:
        file.write('{"name": "half", "rat')
    assert [found.name for found in read_rows(path)] == ["one"]
    append_row(path, row("two"))
    assert [found.name for found in read_rows(path)] == ["one", "two"]
    assert "half" not in path.read_text()


@pytest.mark.parametrize("line", ["nonsense", "[]", "{}", '{"name": "only"}', "3"])
def test_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "rows.jsonl"
    append_row(path, row())
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(DataError, match=r"line 2 of .*rows\.jsonl is not a row of a size table"):
        read_rows(path)


def test_fields_of_a_newer_version_warn(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_row(path, row())
    path.write_text(path.read_text().replace('"ratio"', '"joules": 3, "ratio"'))
    with pytest.warns(UserWarning, match="line 1 .* unknown fields joules, which are passed over"):
        assert read_rows(path) == [row()]


def test_unwritable_place(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="cannot write"):
        append_row(tmp_path / "file" / "rows.jsonl", row())
    with pytest.raises(DiskError, match="it is a folder"):
        append_row(tmp_path, row())


def test_rows_of_old_files_keep_their_perplexity(tmp_path: Path) -> None:
    values = {**asdict(row()), "perplexity": 28.5}
    for name in ("quality", "metric", "higher_is_better", "samples_per_second"):
        del values[name]
    (tmp_path / "r").write_text(json.dumps(values) + "\n")
    (found,) = read_rows(tmp_path / "r")
    assert (found.quality, found.metric, found.higher_is_better) == (28.5, "perplexity", False)
