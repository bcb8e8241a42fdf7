"""Rows that hold an image and what is said about it: the `datasets` library, lists, iterables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from prunepath.data.image_columns import pick_columns
from prunepath.data.image_files import Item, Items, decoded
from prunepath.errors import DataError, RequestError
from prunepath.extras import require_extra

__all__ = ["looks_like_hub_id", "open_rows"]

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+){0,2}", re.ASCII)
# Rows of a stream that are shuffled at a time.
_BUFFER = 1000


def open_rows(
    data: Any,
    *,
    columns: tuple[str, ...],
    image_field: str = "",
    field: str = "",
    argument: str = "label_field",
    needed: bool,
    images: bool = False,
    split: str | None = None,
    seed: int = 0,
    description: str = "",
) -> Items:
    """See rows as images with something said about them.

    Args:
        data: an id of the `datasets` library, streamed, or one of its datasets, or an iterable of
            images, of pairs `(image, what is said)` or of mappings.
        columns: usual names of the column with what is said.
        image_field: the image column that was asked for; empty: by custom.
        field: the other column that was asked for; empty: by custom.
        argument: name of the argument that asks for it.
        needed: whether something must be said.
        images: whether what is said is itself an image (a mask); it is then read on demand.
        split: of a dataset id or of a `DatasetDict`.
        seed: of the order of a stream.
        description: what to call the data, where it has no name of its own.

    Raises:
        DataError: the data has no such columns, or is nothing of the kind.
        RequestError: a split of something that has none, or none of what has several.
    """
    if isinstance(data, str):
        data, description = _open_hub_rows(data, split)
    else:
        data = _of_split(data, split)
    ask = partial(
        pick_columns,
        columns=columns,
        image_field=image_field,
        field=field,
        argument=argument,
        needed=needed,
    )
    if hasattr(data, "cast_column"):
        return _dataset(data, ask, images, seed, description or "the dataset")
    if not isinstance(data, Iterable) or isinstance(data, str | bytes | Mapping):
        raise DataError(
            f"the data is a {type(data).__name__}; give a folder or a .zip file of images, a "
            "dataset id, or an iterable of images"
        )
    description = description or "images given as an iterable"
    rows = (
        _row(cells, f"image {index}", ask, images, description) for index, cells in enumerate(data)
    )
    return Items(list(rows) if hasattr(data, "__len__") else rows, description)


def _open_hub_rows(name: str, split: str | None) -> tuple[Any, str]:
    """Open a dataset id as a stream, so that only what is used is fetched.

    Args:
        name: `name`, `name:config` or `name:config:split`.
        split: the split (default `"train"`), where the name has none.

    Returns:
        The dataset, and what to call it.

    Raises:
        DataError: it cannot be opened.
        RequestError: two splits were asked for.
        MissingExtraError: the `data` extra is not installed.
    """
    parts = name.split(":")
    if len(parts) == 3 and split not in (None, parts[2]):
        raise RequestError(
            f"the dataset id {name} names the split '{parts[2]}' and split='{split}' another; "
            "give one of them"
        )
    split = parts[2] if len(parts) == 3 else split or "train"
    config = parts[1] if len(parts) > 1 else None
    library = require_extra("datasets", "data", f"reading the dataset {parts[0]}")
    try:
        rows = library.load_dataset(parts[0], config, split=split, streaming=True)
    except Exception as error:
        # The library raises a dozen types here, from ValueError to those of its HTTP client.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise DataError(
            f"'{name}' is neither a folder nor a .zip file, and the dataset cannot be opened: "
            f"{reason}; check the name, or give a folder of images"
        ) from error
    return rows, f"dataset {':'.join((*parts[:2],))}, {split} split"


def looks_like_hub_id(name: str) -> bool:
    """Whether a name that is no file may be a dataset id."""
    return bool(_HUB_ID.fullmatch(name)) and not name.lower().endswith((".zip", ".csv", ".jsonl"))


def _of_split(data: Any, split: str | None) -> Any:
    if isinstance(data, Mapping) and all(hasattr(part, "cast_column") for part in data.values()):
        if split not in data:
            raise RequestError(
                f"the dataset has the splits {', '.join(data)}, and "
                f"{'none' if split is None else repr(split)} was asked for; name one with split="
            )
        return data[split]
    if split is not None:
        raise RequestError(
            f"split='{split}' was asked for, but images given as an object have no splits; leave "
            "it out"
        )
    return data


def _row(cells: Any, name: str, ask: Any, images: bool, source: str) -> Item:
    told = None
    if isinstance(cells, Mapping) and not {"bytes", "path"} >= set(cells):
        image, other = ask(cells, f"{name} of {source}")
        cells, told = cells[image], None if other is None else cells[other]
    elif isinstance(cells, tuple | list):
        if len(cells) != 2:
            raise DataError(
                f"{name} of {source} is a {type(cells).__name__} of {len(cells)}; give images, or "
                "pairs of an image and what is said about it"
            )
        cells, told = cells
    return Item(name, partial(decoded, cells), _said(told, images))


def _said(told: Any, images: bool) -> Any:
    return partial(decoded, told) if images and told is not None else told


def _dataset(data: Any, ask: Any, images: bool, seed: int, description: str) -> Items:
    from datasets import Image

    features = getattr(data, "features", None) or {}
    image, other = ask(data.column_names or list(features) or next(iter(data)), description)
    for column in (image, other):
        # Undecoded, so that one unreadable image does not end the whole pass.
        if column is not None and isinstance(features.get(column), Image):
            data = data.cast_column(column, Image(decode=False))
    names: dict[Any, tuple[str, int | None]] = {
        index: (str(name), index)
        for index, name in enumerate(getattr(features.get(other), "names", None) or ())
    }
    if not hasattr(data, "__len__"):
        stream = data.shuffle(seed=seed, buffer_size=_BUFFER)  # many are sorted by class
        return Items(_stream(stream, image, other, images), description, names=names)
    said = [None] * len(data) if other is None or images else list(data[other])

    def item(index: int) -> Item:
        told = said[index]
        if images and other is not None:
            told = lambda: decoded(data[index][other])  # noqa: E731 - read on demand
        return Item(f"row {index}", lambda: decoded(data[index][image]), told)

    return Items([item(index) for index in range(len(data))], description, names=names)


def _stream(data: Any, image: str, other: str | None, images: bool) -> Iterator[Item]:
    for index, row in enumerate(data):
        told = None if other is None else row[other]
        yield Item(f"row {index}", partial(decoded, row[image]), _said(told, images))
