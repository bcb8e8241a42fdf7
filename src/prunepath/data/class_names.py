"""Classes as data writes them -> the model's class indices, by name wherever there are names."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from prunepath.data.image_batch import listed
from prunepath.errors import DataError

__all__ = ["LABELS_FILE", "class_indices", "read_class_names"]

LABELS_FILE = "labels.csv"
"""File beside class folders that says what they are: folder, label and/or index."""

_NAME_COLUMNS = ("label", "name", "class")
_INDEX_COLUMNS = ("index", "id", "class_index")

Names = Mapping[Any, tuple[str, int | None]]


def class_indices(keys: Iterable[Any], config: Any, names: Names, source: str) -> dict[Any, int]:
    """Find the model's class for each class of the data.

    A class is found by the name of its folder, by the name a `labels.csv` or the dataset gives it
    (also by one of the synonyms of an ImageNet label), or as the index itself. Only where the
    model's own classes have no names (`LABEL_0`) do the data's indices decide, or, for exactly as
    many folders as classes, the order of their names.

    Args:
        keys: classes as the data writes them: names, numbers.
        config: the model's config, with `id2label`.
        names: what the data says about its classes -> name, and index or None.
        source: what to call the data in messages.

    Returns:
        Class of the data -> class index of the model.

    Raises:
        DataError: the model has no such class.
    """
    wanted = sorted(set(keys), key=str)
    labels = {int(index): str(label) for index, label in config.id2label.items()}
    nameless = all(label == f"LABEL_{index}" for index, label in labels.items())
    known = _spellings(labels)
    found: dict[Any, int] = {}
    for key in wanted:
        name, index = names.get(key, (str(key), key if isinstance(key, int) else None))
        # A number that has a name is nothing but its place in the data's own list.
        texts = (name,) if isinstance(key, int) else (str(key), name)
        fits = [known[_plain(text)] for text in texts if _plain(text) in known]
        if fits:
            found[key] = fits[0]
        elif nameless and index is not None and index in labels:
            found[key] = index
        elif key not in names and str(key).isdecimal() and int(key) in labels:
            found[key] = int(key)
    missing = [key for key in wanted if key not in found]
    by_order = nameless and not found and len(wanted) == len(labels)
    if by_order and all(isinstance(key, str) for key in wanted):
        return {key: index for index, key in enumerate(wanted)}
    if missing:
        what = [names[key][0] if key in names else key for key in missing]
        raise DataError(
            f"the model has no class for {len(missing)} of the {len(wanted)} classes of {source}: "
            f"{listed(what)}; it has {len(labels)}: {listed(labels.values())}. Rename the classes, "
            f"or say which they are in a {LABELS_FILE} (folder,label,index) beside the folders"
        )
    return found


def read_class_names(text: str, source: str) -> dict[Any, tuple[str, int | None]]:
    """Read a `labels.csv`: the first column names the folder, others say what it is.

    Args:
        text: the file, with a header line.
        source: what to call it in messages.

    Returns:
        Folder -> label (the folder's name where there is none), and index or None.

    Raises:
        DataError: it has neither a label nor an index column, or an index is no number.

    Example:
        >>> read_class_names("wnid,label,index\\nn01440764,tench,0", "labels.csv")
        {'n01440764': ('tench', 0)}
    """
    rows = csv.DictReader(io.StringIO(text.lstrip("\ufeff")))
    columns = [str(name).strip() for name in rows.fieldnames or ()]
    label = next((name for name in columns[1:] if name.lower() in _NAME_COLUMNS), None)
    number = next((name for name in columns[1:] if name.lower() in _INDEX_COLUMNS), None)
    if label is None and number is None:
        raise DataError(
            f"{source} has the columns {', '.join(columns) or 'none'}; it needs the folder first, "
            "then 'label' (the class name) or 'index' (the class number), or both"
        )
    rows.fieldnames = columns
    found: dict[Any, tuple[str, int | None]] = {}
    for row in rows:
        folder = (row[columns[0]] or "").strip()
        index = (row[number] or "").strip() if number else ""
        if index and not index.isdecimal():
            raise DataError(
                f"line {rows.line_num} of {source} has the index '{index}'; write a class number, "
                "counted from 0"
            )
        name = (row[label] or "").strip() if label else ""
        found[folder] = (name or folder, int(index) if index else None)
    return found


def _plain(text: str) -> str:
    return " ".join(text.lower().replace("_", " ").split())


def _spellings(labels: Mapping[int, str]) -> dict[str, int]:
    """Every spelling that means exactly one class: labels, then synonyms between commas."""
    known: dict[str, int] = {}
    doubtful: set[str] = set()
    parts = [(part, index) for index, label in labels.items() for part in label.split(",")]
    for text, index in parts:
        spelling = _plain(text)
        if known.setdefault(spelling, index) != index:
            doubtful.add(spelling)
    for spelling in doubtful:
        del known[spelling]
    for index, label in labels.items():
        known[_plain(label)] = index
    return known
