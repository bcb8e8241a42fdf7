"""Images that are yet to be read -> one tensor; what cannot be read is named, skipped and counted.

Shapes: N images, C channels, H and W height and width.
"""

from __future__ import annotations

import os
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Hashable, Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunepath.data.image_files import Item, Items
from prunepath.data.pixels import IGNORED, Preparer
from prunepath.errors import DataError, PrunepathError
from prunepath.humanize import format_bytes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Batch", "interleaved", "listed", "read_batch"]

# What Pillow raises on damaged files, besides its own classes, which derive from these, and what
# zip files raise on damaged or encrypted ones.
_UNREADABLE = (
    *(OSError, ValueError, TypeError, SyntaxError, EOFError, struct.error, zlib.error),
    *(zipfile.BadZipFile, RuntimeError),
)
_NUM_LISTED = 8


@dataclass(frozen=True)
class Batch:
    """Images that were read.

    Args:
        inputs: `pixel_values` (N, C, H, W), float32, and `pixel_mask` (N, H, W) where images were
            padded to a common size.
        items: what they were read from, N of them.
        masks: what `told` read, (N, H, W); None unless masks were wanted.
        notes: what was noticed on the way.
    """

    inputs: dict[str, Tensor]
    items: list[Item]
    masks: Tensor | None
    notes: tuple[str, ...]


def interleaved(keys: Sequence[Hashable], seed: int) -> list[int]:
    """A random order in which every class comes round in turn, so that a prefix sees them all.

    Args:
        keys: class of each item.
        seed: of the order.

    Returns:
        Indices of all items.

    Example:
        >>> order = interleaved(["a", "a", "a", "b"], seed=0)
        >>> sorted(order), "b" in [["a", "a", "a", "b"][index] for index in order[:2]]
        ([0, 1, 2, 3], True)
    """
    generator = random.Random(seed)
    classes: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        classes.setdefault(key, []).append(index)
    columns = list(classes.values())
    generator.shuffle(columns)
    for column in columns:
        generator.shuffle(column)
    longest = max(map(len, columns), default=0)
    return [column[turn] for turn in range(longest) for column in columns if turn < len(column)]


def read_batch(
    source: Items,
    prepare: Preparer,
    *,
    count: int | None,
    extra: int = 0,
    masks: bool = False,
) -> Batch:
    """Read and prepare images in the order they are given.

    Args:
        source: the images.
        prepare: the model's preparation.
        count: images that must be there; None takes all.
        extra: further ones to take where there are more.
        masks: whether `told` of every item reads its mask.

    Raises:
        DataError: too few can be read, their sizes differ, or they do not fit into memory.
    """
    wanted = None if count is None else count + extra
    pixels: list[Tensor] = []
    said: list[Tensor] = []
    kept: list[Item] = []
    skipped: list[str] = []
    for item in source.items:
        if wanted is not None and len(kept) == wanted:
            break
        if masks and item.told is None:
            raise DataError(
                f"labels are needed, but {item.name} of {source.description} has no mask; give "
                "pairs (image, mask)"
            )
        image = _attempt(item.load, item.name, skipped)
        mask = _attempt(item.told, f"the mask of {item.name}", skipped) if masks else None
        if image is None or (masks and mask is None):
            continue
        pixels.append(prepare(image, item.name))
        if masks:
            said.append(prepare.mask(mask, item.name))
        kept.append(item)
        if len(kept) == 1 and isinstance(source.items, Sized):
            _require_memory(pixels[0], min(len(source.items), wanted or len(source.items)), source)
    _require_enough(len(kept), count, skipped, source)
    inputs, height, width = _joined(pixels, prepare.pads, kept)
    return Batch(
        inputs,
        kept,
        _padded(said, (height, width), IGNORED) if masks else None,
        (*source.notes, *([f"skipped {_these(skipped)}"] if skipped else [])),
    )


def listed(names: Iterable[Any], most: int = _NUM_LISTED) -> str:
    """Names for a message, the first few of them."""
    every = [str(name) for name in names]
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")


def _attempt(load: Callable[[], Any], name: str, skipped: list[str]) -> Any:
    from PIL import Image

    try:
        return load()
    except PrunepathError:
        raise
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else type(error).__name__
        if f"{name} ({reason})" not in skipped:  # an image of several captions comes again
            skipped.append(f"{name} ({reason})")
        return None


def _these(skipped: list[str]) -> str:
    images = "image" if len(skipped) == 1 else "images"
    return f"{len(skipped)} unreadable {images}: {listed(skipped)}"


def _require_enough(found: int, count: int | None, skipped: list[str], source: Items) -> None:
    also = f" (and {_these(skipped)})" if skipped else ""
    if not found:
        raise DataError(
            f"there is no image that can be read in {source.description}{also}; give a folder or "
            "a .zip file of images, by class where labels are needed"
        )
    if count is not None and found < count:
        raise DataError(
            f"{count} images were asked for, but {source.description} has only {found} that can "
            f"be read{also}; give more images, or ask for fewer"
        )


def _require_memory(first: Tensor, count: int, source: Items) -> None:
    needed = first.numel() * first.element_size() * count
    try:
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # a system that does not tell
        return
    if needed > there // 2:
        raise DataError(
            f"{count} images of {source.description} take {format_bytes(needed)} of the "
            f"{format_bytes(there)} of memory; ask for fewer"
        )


def _joined(
    pixels: list[Tensor], pads: bool, items: list[Item]
) -> tuple[dict[str, Tensor], int, int]:
    import torch

    shapes = [tuple(value.shape) for value in pixels]
    height = max(shape[1] for shape in shapes)
    width = max(shape[2] for shape in shapes)
    if len(set(shapes)) == 1:
        return {"pixel_values": _padded(pixels, (height, width), 0)}, height, width
    if not pads or len({shape[0] for shape in shapes}) > 1:
        other = next(index for index, shape in enumerate(shapes) if shape != shapes[0])
        raise DataError(
            f"prepared images differ in shape: {items[0].name} is {shapes[0]} and "
            f"{items[other].name} {shapes[other]} (channels, height, width); use images of one "
            "size, or a preprocessor_config.json that resizes to a fixed one"
        )
    known = torch.zeros(len(pixels), height, width, dtype=torch.int64)
    for row, (_, rows, columns) in zip(known, shapes, strict=True):
        row[:rows, :columns] = 1
    values = _padded(pixels, (height, width), 0)
    return {"pixel_values": values, "pixel_mask": known}, height, width


def _padded(parts: list[Tensor], size: tuple[int, int], fill: float) -> Tensor:
    """All parts in one tensor, filled up below and to the right; the parts are used up."""
    shape = (len(parts), *parts[0].shape[:-2], *size)
    whole = parts[0].new_full(shape, fill)
    for index in range(len(parts)):
        part = parts[index]
        whole[index, ..., : part.shape[-2], : part.shape[-1]] = part
        parts[index] = part.new_empty(0)  # a large set is never in memory twice
    return whole
