"""Every kind of text source opens, and every wrong one says what is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prunepath.data import clean_wikitext, open_texts, readers
from prunepath.errors import DataError, MissingExtraError, RequestError


def text_of(source: Any, **options: Any) -> str:
    return "".join(open_texts(source, **options))


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_text_file_is_one_document_verbatim(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", " = Title = \n\n\n one <unk> \n")
    assert text_of(path) == " = Title = \n\n\n one <unk> \n"
    assert text_of(str(path)) == text_of(path)
    assert open_texts(path).description == str(path)


def test_large_text_file_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_PIECE_CHARS", 7)
    text = "line one\nline two \u2014 done\n" * 20
    source = open_texts(write(tmp_path / "a.txt", text))
    assert len(list(source)) > 10
    assert "".join(source) == text
    assert len(next(iter(source))) == 7


def test_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfhello")
    assert text_of(tmp_path / "a.txt") == "hello"


def test_json_lines(tmp_path: Path) -> None:
    rows = [{"text": "one"}, {"text": " \n"}, {"text": "two"}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    assert text_of(path) == "one\n\ntwo"


def test_json_lines_across_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_PIECE_CHARS", 5)
    path = write(tmp_path / "a.jsonl", '{"text": "one"}\n{"text": "two"}')
    assert text_of(path) == "one\n\ntwo"


def test_json_list_and_another_field(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", json.dumps([{"body": "one"}, {"body": "two"}], indent=1))
    assert text_of(path, field="body") == "one\n\ntwo"


def test_iterables() -> None:
    assert text_of(["one", "two"]) == "one\n\ntwo"
    assert text_of([{"text": "one"}, "two"]) == "one\n\ntwo"


def test_one_shot_iterator_loses_nothing() -> None:
    def produce() -> Iterator[str]:
        yield " "
        yield "one"
        yield "two"

    assert text_of(produce()) == "one\n\ntwo"


def test_source_can_be_read_twice() -> None:
    source = open_texts(["one", "two"])
    assert list(source) == list(source)


def test_packaged_text_has_two_disjoint_splits() -> None:
    calibration, evaluation = text_of(None), text_of(None, split="evaluation")
    assert calibration == text_of(None, split="calibration")
    assert calibration.startswith("Loomings.\n\nCall me Ishmael.")
    assert evaluation.startswith("The Mast-Head.")
    assert len(calibration) > 200_000
    assert len(evaluation) > 75_000
    paragraphs = {p for p in calibration.split("\n\n") if len(p) > 60}
    assert paragraphs.isdisjoint(evaluation.split("\n\n"))


def test_packaged_text_is_clean() -> None:
    text = text_of(None) + text_of(None, split="evaluation")
    for unwanted in ("Gutenberg", "http", "\f", "*", "\r", "  "):
        assert unwanted not in text
    assert {char for char in text if ord(char) > 126} == {"\u2014"}


def test_packaged_text_knows_its_splits() -> None:
    with pytest.raises(RequestError, match="no split 'test'; use 'calibration' or 'evaluation'"):
        open_texts(None, split="test")


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path / "wt2_valid.txt", "x")
    with pytest.raises(DataError, match=r"neither an existing file .*did you mean '.*wt2_valid\.t"):
        open_texts(tmp_path / "wt2_vald.txt")


def test_missing_file_lists_the_folder(tmp_path: Path) -> None:
    write(tmp_path / "other.md", "x")
    with pytest.raises(DataError, match=r"the folder .* holds: other\.md"):
        open_texts(str(tmp_path / "zzz.jsonl"))


def test_missing_folder() -> None:
    with pytest.raises(DataError, match="there is no folder no_such; check the path"):
        open_texts("no_such/texts.txt")


def test_prose_instead_of_a_name() -> None:
    with pytest.raises(DataError, match="'call me later!' is neither an existing file nor a"):
        open_texts("call me later!")


def test_a_folder_and_a_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder; name one .txt or .jsonl file in it"):
        open_texts(tmp_path)
    path = write(tmp_path / "a.csv", "text\none")
    with pytest.raises(DataError, match=r"cannot read text from the \.csv file .*; convert it"):
        open_texts(path)


@pytest.mark.parametrize("content", ["", " \n\t\n"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_empty_file(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(DataError, match=rf"there is no text in .*{name}; give a source"):
        open_texts(write(tmp_path / name, content))


@pytest.mark.parametrize("source", [[], [" ", ""], iter([])])
def test_empty_iterable(source: Any) -> None:
    with pytest.raises(DataError, match="there is no text in texts given as an iterable"):
        open_texts(source)


def test_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"ab\xff\xfe")
    with pytest.raises(DataError, match=r"a\.txt is not UTF-8 text .*at byte 2"):
        open_texts(tmp_path / "a.txt")


def test_line_that_is_not_json(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "one"}\n\n{"text": oops}\n')
    with pytest.raises(DataError, match=r"line 3 of .*a\.jsonl is not JSON \(Expecting value at"):
        text_of(path)


def test_missing_field_lists_the_fields(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"body": "one", "id": 3}\n')
    with pytest.raises(DataError, match="line 1 of .* has no field 'text'; it has: body, id"):
        open_texts(path)
    with pytest.raises(DataError, match="the field 'id' of line 1 .* holds a int, not text"):
        open_texts(path, field="id")


def test_row_that_is_not_an_object(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 1 of .* is a int, not an object"):
        open_texts(write(tmp_path / "a.jsonl", "3\n"))


def test_split_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="split='train' was asked for, but the file"):
        open_texts(write(tmp_path / "a.txt", "x"), split="train")


class Hub:
    """Stands in for the `datasets` library and remembers what was asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.error: Exception | None = None
        library = SimpleNamespace(load_dataset=self.load_dataset)
        monkeypatch.setitem(sys.modules, "datasets", library)  # type: ignore[arg-type]

    def load_dataset(self, *names: Any, split: str, streaming: bool) -> list[dict[str, str]]:
        if self.error is not None:
            raise self.error
        assert streaming
        self.asked.append((*names, split))
        return [{"text": "one"}, {"text": "two"}]


def test_dataset_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch)
    assert text_of("org/corpus") == "one\n\ntwo"
    assert text_of("corpus:small", split="test") == "one\n\ntwo"
    source = open_texts("org/corpus:small:validation")
    assert source.description == "dataset org/corpus, small, validation split"
    assert hub.asked == [
        ("org/corpus", None, "train"),
        ("corpus", "small", "test"),
        ("org/corpus", "small", "validation"),
    ]


def test_dataset_id_with_two_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(monkeypatch)
    with pytest.raises(RequestError, match="names the split 'train' and split='test' another"):
        open_texts("org/corpus:small:train", split="test")


def test_dataset_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch)
    hub.error = ConnectionError("Couldn't reach the Hub.\nlong story")
    message = "not an existing file, and the dataset wikitxt:train cannot be opened: Couldn't reach"
    with pytest.raises(DataError, match=message):
        open_texts("wikitxt")


def test_dataset_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r'pip install "prunepath\[data\]"'):
        open_texts("org/corpus")


def test_clean_wikitext() -> None:
    raw = " a guest @-@ starring role , 10 @,@ 000 at 3 @.@ 5 <unk> "
    assert clean_wikitext(raw) == " a guest-starring role , 10,000 at 3.5 unk "
