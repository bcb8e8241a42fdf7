"""Where text comes from: a file, a dataset id, any iterable, or the text in the package.

`open_texts` decides by looking, fails at once when there is nothing to read, and otherwise gives a
`TextSource`, which reads lazily: a gigabyte of text is not read to use its first page.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import tee
from pathlib import Path
from typing import Any

from prunepath.data.readers import (
    default_documents,
    file_pieces,
    json_documents,
    missing_file_message,
    open_hub,
    row_text,
)
from prunepath.errors import DataError, RequestError

__all__ = ["TextInput", "TextSource", "clean_wikitext", "open_texts"]

TextInput = str | os.PathLike[str] | Iterable[str | Mapping[str, Any]] | None

# What `open_texts` puts between two documents.
SEPARATOR = "\n\n"

_JSON_SUFFIXES = frozenset({".json", ".jsonl", ".ndjson"})
_TEXT_SUFFIXES = frozenset({"", ".md", ".raw", ".rst", ".text", ".tokens", ".txt"})
# Formats people reach for, which need another reader than ours.
_OTHER_SUFFIXES = frozenset({".arrow", ".csv", ".gz", ".html", ".parquet", ".tsv", ".xml", ".zip"})
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+){0,2}", re.ASCII)
# `<unk>` and the spaced marks are how WikiText was published; models were not trained on them.
_WIKITEXT_MARKS = ((" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", "."), ("<unk>", "unk"))


@dataclass(frozen=True)
class TextSource:
    """Text that can be read piece by piece, and what to call it.

    Iterating gives pieces of text; joined without anything between them they are the whole text.
    Separate documents already have a blank line between them.

    Args:
        description: what the text is, for reports and provenance.
        pieces: makes the iterator over the pieces. A source made from a one-shot iterable can be
            read once; all others any number of times.
    """

    description: str
    pieces: Callable[[], Iterator[str]]

    def __iter__(self) -> Iterator[str]:
        return self.pieces()


def open_texts(
    source: TextInput = None, *, field: str = "text", split: str | None = None
) -> TextSource:
    """Find out what `source` is and open it.

    Args:
        source: one of
            None, the public-domain prose in the package (see `data/default.LICENSE.md`);
            a text file, taken verbatim as one document;
            a `.jsonl` file with one object per line, or a `.json` file with a list of objects;
            an id of the `datasets` library: `name`, `name:config` or `name:config:split`, streamed;
            an iterable of strings or of mappings, a `datasets.Dataset` for example.
        field: which field of an object holds the text.
        split: `"calibration"` (the default) or `"evaluation"` of the package's text, which have no
            document in common; a split of a dataset id (default `"train"`). Files have none.

    Returns:
        The opened source. Its first piece has been read, so it is not empty.

    Raises:
        DataError: there is no such file or dataset, it holds no text, or an object lacks the field.
        RequestError: a split was asked for where there is none.
        MissingExtraError: a dataset id needs `pip install "prunepath[data]"`.

    Example:
        >>> text = open_texts(["one document", "another"])
        >>> "".join(text)
        'one document\\n\\nanother'
        >>> open_texts().description
        'packaged public-domain prose, calibration split'
    """
    if source is None:
        return _packaged(split or "calibration")
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        path = Path(name).expanduser()
        if path.exists():
            return _file(path, field, split)
        if not isinstance(source, str) or not _looks_like_hub_id(name):
            raise DataError(missing_file_message(path))
        return _hub(name, field, split)
    return _iterable(source, field, split)


def clean_wikitext(text: str) -> str:
    """Undo the marks WikiText was published with, the usual preparation for perplexity.

    Args:
        text: raw WikiText.

    Returns:
        The text with ` @-@ `, ` @,@ `, ` @.@ ` and `<unk>` written as `-`, `,`, `.` and `unk`.

    Example:
        >>> clean_wikitext("a guest @-@ starring role , 3 @.@ 5 <unk>")
        'a guest-starring role , 3.5 unk'
    """
    for mark, plain in _WIKITEXT_MARKS:
        text = text.replace(mark, plain)
    return text


def _packaged(split: str) -> TextSource:
    if split not in ("calibration", "evaluation"):
        raise RequestError(
            f"the packaged text has no split '{split}'; use 'calibration' or 'evaluation'"
        )
    text = files("prunepath.data").joinpath("default.txt").read_text(encoding="utf-8")
    documents = default_documents(text, split)
    return TextSource(
        f"packaged public-domain prose, {split} split", _joined(lambda: iter(documents))
    )


def _file(path: Path, field: str, split: str | None) -> TextSource:
    _refuse_split(split, f"the file {path}")
    if path.is_dir():
        raise DataError(f"{path} is a folder; name one .txt or .jsonl file in it")
    suffix = path.suffix.lower()
    if suffix in _OTHER_SUFFIXES:
        raise DataError(
            f"cannot read text from the {suffix} file {path}; convert it to .txt or .jsonl, or "
            "open it with the datasets library and pass the dataset object"
        )
    if suffix in _JSON_SUFFIXES:
        return _checked(str(path), _joined(lambda: json_documents(path, field)))
    return _checked(str(path), lambda: file_pieces(path))


def _hub(name: str, field: str, split: str | None) -> TextSource:
    parts = name.split(":")
    if len(parts) == 3:
        if split is not None and split != parts[2]:
            raise RequestError(
                f"the dataset id {name} names the split '{parts[2]}' and split='{split}' another; "
                "give one of them"
            )
        split = parts.pop()
    dataset, config = parts[0], parts[1] if len(parts) == 2 else None
    split = split or "train"
    rows = open_hub(dataset, config, split)
    description = f"dataset {dataset}{f', {config}' if config else ''}, {split} split"
    return _checked(
        description,
        _joined(lambda: (row_text(row, field, f"a row of {description}") for row in rows)),
    )


def _looks_like_hub_id(name: str) -> bool:
    known = _JSON_SUFFIXES | _OTHER_SUFFIXES | (_TEXT_SUFFIXES - {""})
    return bool(_HUB_ID.fullmatch(name)) and Path(name).suffix.lower() not in known


def _refuse_split(split: str | None, what: str) -> None:
    if split is not None:
        raise RequestError(f"split='{split}' was asked for, but {what} has no splits; leave it out")


def _iterable(
    source: Iterable[str | Mapping[str, Any]], field: str, split: str | None
) -> TextSource:
    description = "texts given as an iterable"
    _refuse_split(split, description)
    # A one-shot iterator must not lose the items that the check for emptiness reads.
    probe, source = tee(source) if isinstance(source, Iterator) else (source, source)
    _checked(description, lambda: _iterable_documents(probe, field))
    return TextSource(description, _joined(lambda: _iterable_documents(source, field)))


def _iterable_documents(source: Iterable[str | Mapping[str, Any]], field: str) -> Iterator[str]:
    for index, item in enumerate(source):
        if isinstance(item, str):
            yield item
        else:
            yield row_text(item, field, f"item {index}")


def _joined(documents: Callable[[], Iterator[str]]) -> Callable[[], Iterator[str]]:
    """Put a blank line between documents; documents without text are passed over."""

    def pieces() -> Iterator[str]:
        first = True
        for document in documents():
            if document.strip():
                yield document if first else SEPARATOR + document
                first = False

    return pieces


def _checked(description: str, pieces: Callable[[], Iterator[str]]) -> TextSource:
    """Read up to the first text now, so that an empty source fails before any expensive step."""
    if not any(piece.strip() for piece in pieces()):
        raise DataError(f"there is no text in {description}; give a source that holds some")
    return TextSource(description, pieces)
