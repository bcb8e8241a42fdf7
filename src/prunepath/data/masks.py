"""Images with masks of class ids -> samples: folders of the same names, datasets, pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from prunepath.data.image_batch import interleaved, listed, read_batch
from prunepath.data.image_files import Items, Tree, decoded, open_tree
from prunepath.data.image_rows import open_rows
from prunepath.data.images import local_path, open_images
from prunepath.data.pixels import open_preparer
from prunepath.data.samples import Samples
from prunepath.errors import DataError

if TYPE_CHECKING:
    from prunepath.tasks.task import DataRequest

__all__ = ["mask_samples"]

_IMAGE_FOLDERS = ("images", "image", "img", "imgs", "JPEGImages", "leftImg8bit")
_MASK_FOLDERS = (
    *("masks", "mask", "annotations", "annotation", "labels", "segmentations"),
    *("SegmentationClass", "gtFine"),
)
_MASK_COLUMNS = (
    *("mask", "masks", "annotation", "segmentation", "segmentation_mask", "semantic_mask"),
    *("label", "labels", "label_map"),
)


def mask_samples(opened: Any, data: Any, request: DataRequest) -> Samples:
    """Read images, and their masks where labels are needed.

    Args:
        opened: an opened model (`checkpoint.source.OpenedModel`).
        data: one of
            a folder or a .zip file with a folder `images` and a folder `masks` (or `annotations`,
            `labels`, ...) in it, whose files have the same names but for the ending;
            two folders, `(images, masks)`;
            an id of the `datasets` library, streamed, or one of its datasets;
            an iterable of pairs `(image, mask)`;
            without masks, whatever `data.images.image_samples` takes.
            A mask has one channel (a grey or palette PNG) and holds class ids; 255 is no class.
        request: how much of it; `label_field` names the mask column.

    Returns:
        `pixel_values` (N, C, H, W), and `pixel_mask` (N, H, W) where images were padded to a
        common size; class indices (N, H, W) where labels are needed, -1 where nothing is said.

    Raises:
        DataError: there are too few images, no masks where they are needed, or other classes.
        RequestError: a split of something that has none.
        MissingExtraError: Pillow, or for a dataset id `datasets`, is not installed.
    """
    prepare = open_preparer(opened)
    with _open(data, request) as source:
        if isinstance(source.items, Sequence):
            order = interleaved([None] * len(source.items), request.seed)
            source = replace(source, items=[source.items[index] for index in order])
        batch = read_batch(
            source, prepare, count=request.count, extra=request.extra, masks=request.labels
        )
    return Samples(
        inputs=batch.inputs,
        labels=batch.masks,
        description=f"{source.description}, {len(batch.items)} images",
        notes=batch.notes,
    )


@contextmanager
def _open(data: Any, request: DataRequest) -> Iterator[Items]:
    if _is_two_folders(data):
        with ExitStack() as stack:
            images, masks = (
                stack.enter_context(open_tree(Path(part))).split(request.split) for part in data
            )
            yield _matched(images, masks, images.description)
        return
    path = local_path(data)
    if path is None:
        yield _rows(data, request)
        return
    with open_tree(path) as tree:
        found = _two_folders(tree, request)
        if found is not None:
            yield _matched(*found, str(path))
            return
    if request.labels:
        raise DataError(
            f"{path} has no folder of images ({', '.join(_IMAGE_FOLDERS[:3])}, ...) beside one of "
            f"masks ({', '.join(_MASK_FOLDERS[:5])}, ...); name them so, or give two folders "
            "(images, masks)"
        )
    with open_images(data, request) as source:
        yield source


def _is_two_folders(data: Any) -> bool:
    return (
        isinstance(data, tuple | list)
        and len(data) == 2
        and all(isinstance(part, str | Path) and Path(part).exists() for part in data)
    )


def _two_folders(tree: Tree, request: DataRequest) -> tuple[Tree, Tree] | None:
    """The folders of images and masks; a split may lie around them or within."""
    split = request.split
    if split is not None and split in tree.folders:
        tree, split = tree.below(split), None
    names = {name.lower(): name for name in tree.folders if "/" not in name}
    images = [names[name.lower()] for name in _IMAGE_FOLDERS if name.lower() in names]
    masks = [names[name.lower()] for name in _MASK_FOLDERS if name.lower() in names]
    if not images or not masks:
        return None
    return tree.below(images[0]).split(split), tree.below(masks[0]).split(split)


def _matched(images: Tree, masks: Tree, description: str) -> Items:
    """Images with the mask of the same name."""
    known = {_stem(name): name for name in masks.images}
    alone = [name for name in images.images if _stem(name) not in known]
    items = [
        images.item(name, _reader(masks, known[_stem(name)]))
        for name in images.images
        if _stem(name) in known
    ]
    if alone and not items:
        raise DataError(
            f"none of the {len(alone)} images of {images.description} has a mask of the same name "
            f"in {masks.description} (images: {listed(alone, 3)}; masks: "
            f"{listed(known.values(), 3) or 'none'}); name masks as their images"
        )
    notes = (f"left out {len(alone)} images without a mask: {listed(alone)}",) if alone else ()
    return Items(items, description, notes)


def _reader(masks: Tree, name: str) -> Any:
    return lambda: decoded(masks.read(name))


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _rows(data: Any, request: DataRequest) -> Items:
    return open_rows(
        data,
        columns=_MASK_COLUMNS,
        image_field=request.field,
        field=request.label_field,
        needed=request.labels,
        images=True,
        split=request.split,
        seed=request.seed,
    )
