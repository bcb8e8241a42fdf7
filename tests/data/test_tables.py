"""Rows from files, iterables and tuples; columns by name, by custom and by position."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prunepath.data.columns import Columns
from prunepath.data.tables import Table, read_table
from prunepath.errors import DataError, RequestError

COLUMNS = Columns(
    texts=(("sentence1", "sentence2"), ("sentence",), ("text",)),
    labels=("label", "score"),
    by_position={1: 1, 2: 1, 3: 2},
)


def read(data: Any, **request: Any) -> Table:
    return read_table(data, COLUMNS, **{"count": None, **request})


def written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def plain(table: Table) -> list[tuple[Any, ...]]:
    return [(*row.texts, row.label) for row in table.rows]


def test_tsv_has_no_quoting(tmp_path: Path) -> None:
    file = written(tmp_path, "a.tsv", 'sentence\tlabel\n"fine , she said\t1\npoor "\t0\n')
    assert plain(read(file, labels=True)) == [('"fine , she said', "1"), ('poor "', "0")]


def test_csv_quotes_commas_and_line_breaks(tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", 'Label,Text\r\n1,"fine, ""really""\r\nyes"\r\n0,poor\r\n')
    assert plain(read(file)) == [('fine, "really"\nyes', "1"), ("poor", "0")]


def test_file_without_header_goes_by_position(tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", "a man,the man,4.5\none,two,0\n")
    table = read(file, labels=True)
    assert plain(table) == [("a man", "the man", "4.5"), ("one", "two", "0")]
    assert table.rows[1].where == f"line 2 of {file}"


def test_columns_by_number(tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", "7,good,x\n8,bad,y\n")
    assert plain(read(file, field="2", label_field="3")) == [("good", "x"), ("bad", "y")]


def test_columns_by_name(tmp_path: Path) -> None:
    file = written(tmp_path, "a.csv", "idx,title,body,stars\n0,good,so good,5\n")
    table = read(file, field="title, body", label_field="stars")
    assert plain(table) == [("good", "so good", "5")]


@pytest.mark.parametrize("listed", [True, False])
def test_json(tmp_path: Path, listed: bool) -> None:
    rows = [{"sentence": "a", "label": 1}, {"sentence": "b", "label": 0}]
    text = json.dumps(rows) if listed else "\n".join(map(json.dumps, rows)) + "\n\n"
    file = written(tmp_path, "a.json" if listed else "a.jsonl", text)
    assert plain(read(file, labels=True)) == [("a", 1), ("b", 0)]


def test_text_file_has_a_text_a_line(tmp_path: Path) -> None:
    assert plain(read(written(tmp_path, "a.txt", "one\n\ntwo\n"))) == [("one", None), ("two", None)]


def test_iterables() -> None:
    assert plain(read(["a", "b"])) == [("a", None), ("b", None)]
    assert plain(read([("a", "b", 2.0)])) == [("a", "b", 2.0)]
    assert plain(read({"text": text, "score": 1} for text in "ab")) == [("a", 1), ("b", 1)]


def test_data_frame() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["a", "b"], "label": [0, 1]})
    assert plain(read(frame)) == [("a", 0), ("b", 1)]


def test_rows_are_drawn_from_all_over_the_table() -> None:
    rows = [(str(index), index) for index in range(100)]
    drawn = [row.label for row in read(rows, count=10, extra=5).rows]
    assert len(set(drawn)) == 15
    assert max(drawn) > 50
    assert drawn == [row.label for row in read(rows, count=10, extra=5).rows]
    assert drawn != [row.label for row in read(rows, count=10, extra=5, seed=1).rows]
    every = [row.label for row in read(rows, count=99, extra=5).rows]
    assert sorted(every) == list(range(100)), "fewer than were asked for: all of them"
    assert min(every[50:]) < 25 < 75 < max(every[:50]), "no part is one end of the table"
    assert [row.label for row in read(rows, count=None).rows] == list(range(100))


def test_stream_is_not_read_to_its_end() -> None:
    taken = 0

    def forever() -> Iterator[tuple[str, int]]:
        nonlocal taken
        while True:
            taken += 1
            yield ("a", 1)

    assert len(read(forever(), count=3).rows) == 3
    assert taken <= 25


@pytest.mark.parametrize(
    ("text", "request_", "message"),
    [
        (
            "sentnce\tlabel\na\t1\n",
            {},
            r"no text column of a usual name \(.*\); it has: sentnce, l",
        ),
        (
            "sentence\tx\na\t1\n",
            {"labels": True},
            r"no label column of a usual name \(label or score",
        ),
        (
            "sentence\tlabel\na\t1\n",
            {"field": "sentense"},
            "did you mean 'sentence'. It has: sentence",
        ),
        (
            "sentence\tlabel\na\t1\n",
            {"label_field": "z"},
            r"no column 'z'\. It has: .*--label-field",
        ),
        (
            "sentence\tlabel\na\t1\nb\n",
            {},
            "line 3 of .* has 1 cells, but the first line has 2; mend",
        ),
        ("sentence\tlabel\na\t\n", {"labels": True}, "line 2 of .* has no label in 'label'; mend"),
        ("sentence\tlabel\n", {}, "there is no row in .*a.tsv; give a source that holds some"),
        ("", {}, "there is no row in .*a.tsv"),
        ("sentence\tlabel\na\t1\n", {"count": 2}, "2 rows were asked for, but .* has only 1; give"),
    ],
)
def test_complaints_about_files(
    tmp_path: Path, text: str, request_: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(written(tmp_path, "a.tsv", text), **request_)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([{"text": 3}], "the column 'text' of row 0 holds a int, not text; name another"),
        ([{"text": None}], "of row 0 holds null, not text"),
        ([{"text": "a"}, {"body": "b"}], "row 1 has no 'text', which rows before it have"),
        ([3], "row 0 is a int; give rows that are mappings, tuples or strings"),
        ([("a", "b", "c", 1)], "have 4 cells without names, and 1 or 2 or 3 were expected"),
        (7, "the data is a int; give a file, a dataset id or an iterable of rows"),
    ],
)
def test_complaints_about_rows(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(data)


def test_complaints_about_names(tmp_path: Path) -> None:
    written(tmp_path, "train.tsv", "text\tlabel\na\t1\n")
    with pytest.raises(DataError, match=r"did you mean '.*train\.tsv'"):
        read(tmp_path / "trian.tsv")
    with pytest.raises(DataError, match=r"is a folder; name one \.tsv"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"cannot read rows from the \.zip file .*; convert it"):
        read(written(tmp_path, "a.zip", ""))
    with pytest.raises(DataError, match="line 2 of .* is not JSON"):
        read(written(tmp_path, "a.jsonl", '{"text": "a"}\n{"text"\n'))
    with pytest.raises(DataError, match="line 1 of .* is a int, not an object"):
        read(written(tmp_path, "b.jsonl", "3\n"))
    with pytest.raises(DataError, match="rows of rows given as an iterable hold no label"):
        read(["a"], labels=True)
    with pytest.raises(RequestError, match="split='test' was asked for, but the file"):
        read(tmp_path / "train.tsv", split="test")


def test_dataset_id_names_one_split() -> None:
    with pytest.raises(RequestError, match="names the split 'train' and split='test' another"):
        read("nyu-mll/glue:sst2:train", split="test")


def test_dataset_id_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None, str]] = []

    def hub(*names: Any) -> list[dict[str, Any]]:
        asked.append(names)
        return [{"sentence": str(index), "label": index} for index in range(9)]

    monkeypatch.setattr("prunepath.data.tables.open_hub", hub)
    table = read("nyu-mll/glue:sst2", split="validation", count=1)
    assert asked == [("nyu-mll/glue", "sst2", "validation")]
    assert table.description == "dataset nyu-mll/glue, sst2, validation split"
    assert int(table.rows[0].label) < 8
