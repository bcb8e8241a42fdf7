"""Images with or without classes -> samples: folders, zip files, dataset ids, iterables.

Read `image_files` (where images lie), then `pixels` (how a model wants them), then `image_batch`.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from prunepath.data.class_names import LABELS_FILE, class_indices, read_class_names
from prunepath.data.image_batch import interleaved, listed, read_batch
from prunepath.data.image_files import Item, Items, Tree, open_tree
from prunepath.data.image_rows import looks_like_hub_id, open_rows
from prunepath.data.pixels import open_preparer
from prunepath.data.readers import missing_file_message
from prunepath.data.samples import Samples
from prunepath.errors import DataError

if TYPE_CHECKING:
    from prunepath.tasks.task import DataRequest

__all__ = ["image_samples", "local_path", "open_images"]

LABEL_COLUMNS = ("label", "labels", "class", "fine_label", "category", "target", "cls")


def image_samples(opened: Any, data: Any, request: DataRequest) -> Samples:
    """Read images, and their classes where labels are needed.

    Where not all are taken, they come in a random order in which the classes take turns. Images
    that cannot be read are skipped and named in `Samples.notes`.

    Args:
        opened: an opened model (`checkpoint.source.OpenedModel`).
        data: one of
            a folder or a .zip file with one folder of images per class, named as the model's
            class, or as a `labels.csv` in or beside it says (folder, label and/or index);
            a folder or a .zip file of images without classes, where no labels are needed;
            an id of the `datasets` library, streamed, or one of its datasets;
            an iterable of Pillow images, of tensors of finished pixel values (C, H, W), or of
            pairs `(image, class)`.
        request: how much of it; `field` names an image column and `label_field` a label column.

    Returns:
        `pixel_values`, (N, C, H, W), and class indices (N,) where labels are needed.

    Raises:
        DataError: there are too few images, no labels where they are needed, or other classes.
        RequestError: a split of something that has none.
        MissingExtraError: Pillow, or for a dataset id `datasets`, is not installed.
    """
    prepare = open_preparer(opened)
    with open_images(data, request) as source:
        items = source.items
        indices: dict[Any, int] = {}
        if isinstance(items, Sequence):
            keys = [_key(item, request.labels) for item in items]
            if request.labels:
                indices = _classes(keys, opened, source)
            order = interleaved(keys, request.seed)
            source = replace(source, items=[items[index] for index in order])
        batch = read_batch(source, prepare, count=request.count, extra=request.extra)
    labels = None
    if request.labels:
        import torch

        keys = [_key(item, True) for item in batch.items]
        indices = indices or _classes(keys, opened, source)
        labels = torch.tensor([indices[key] for key in keys])
    return Samples(
        inputs=batch.inputs,
        labels=labels,
        description=f"{source.description}, {len(batch.items)} images",
        notes=batch.notes,
    )


@contextmanager
def open_images(data: Any, request: DataRequest) -> Iterator[Items]:
    """Find out what the data is; a zip file stays open inside the block.

    Raises:
        DataError: it holds no images.
        RequestError: a split of something that has none.
    """
    path = local_path(data)
    if path is not None:
        with open_tree(path) as tree:
            yield _class_folders(tree, request.split, path)
        return
    yield open_rows(
        data,
        columns=LABEL_COLUMNS,
        image_field=request.field,
        field=request.label_field,
        needed=request.labels,
        split=request.split,
        seed=request.seed,
    )


def local_path(data: Any) -> Path | None:
    """The file or folder the data is; None if it is a dataset id or an object.

    Raises:
        DataError: nothing was given, or it is neither there nor a dataset id.
    """
    if data is None:
        raise DataError(
            "this task has no data in the package; give a folder or a .zip file of images, or a "
            "dataset id, with --data (data=...)"
        )
    if not isinstance(data, str | os.PathLike):
        return None
    path = Path(data).expanduser()
    if path.exists():
        return path
    if isinstance(data, str) and looks_like_hub_id(data):
        return None
    raise DataError(missing_file_message(path))


def _class_folders(whole: Tree, split: str | None, path: Path) -> Items:
    """Images with the folder they lie in; a single folder around all class folders is opened."""
    tree = whole.split(split)
    images = tree.images
    while images and all(name.count("/") >= 2 for name in images):
        tops = {PurePosixPath(name).parts[0] for name in images}
        if len(tops) > 1:
            break
        tree = tree.below(tops.pop())
        images = tree.images
    used = {PurePosixPath(name).parts[0] for name in images if "/" in name}
    notes = []
    empty = [name for name in tree.folders if "/" not in name and name not in used]
    if used and empty:
        notes.append(f"class folders without images: {listed(empty)}")
    loose = [name for name in images if "/" not in name]
    if used and loose:
        notes.append(f"images outside class folders were left out: {listed(loose)}")
        images = [name for name in images if "/" in name]
    items = [
        tree.item(name, PurePosixPath(name).parts[0] if "/" in name else None) for name in images
    ]
    return Items(items, str(path), tuple(notes), _names((tree, whole), path))


def _names(trees: tuple[Tree, ...], path: Path) -> dict[Any, tuple[str, int | None]]:
    for tree in trees:
        if LABELS_FILE in tree.files:
            source = f"{tree.description}/{LABELS_FILE}"
            return read_class_names(tree.read(LABELS_FILE).decode(), source)
    beside = path.parent / LABELS_FILE
    return read_class_names(beside.read_text(), str(beside)) if beside.is_file() else {}


def _classes(keys: list[Any], opened: Any, source: Items) -> dict[Any, int]:
    unlabelled = sum(key is None for key in keys)
    if unlabelled:
        raise DataError(
            f"labels are needed, but {unlabelled} of {len(keys)} images of {source.description} "
            "have none; give one folder of images per class, or pairs (image, class)"
        )
    return class_indices(keys, opened.model.config, source.names, source.description)


def _key(item: Item, needed: bool) -> str | int | None:
    """The class of an image as a name or a number."""
    if item.told is None or isinstance(item.told, str):
        return item.told
    try:
        return operator.index(item.told)  # numbers of NumPy and PyTorch, too
    except TypeError:
        if not needed:
            return str(item.told)
    raise DataError(
        f"the class of {item.name} is a {type(item.told).__name__}; give class names or numbers, "
        "or name the column that holds them with label_field="
    )
