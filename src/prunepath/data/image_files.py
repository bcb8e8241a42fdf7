"""Folders and zip files of images, seen the same way: names of files, and their bytes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from prunepath.errors import DataError, RequestError

__all__ = ["Item", "Items", "Tree", "decoded", "open_tree"]

_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class Item:
    """One image that is yet to be read.

    Args:
        name: what to call it in messages.
        load: reads it; a Pillow image, or a tensor of finished pixel values.
        told: what the data says about it: its class, its captions, or a function that reads its
            mask; None where it says nothing.
    """

    name: str
    load: Callable[[], Any]
    told: Any = None


@dataclass(frozen=True)
class Items:
    """Images that are yet to be read.

    Args:
        items: the images; an iterator where their number is not known.
        description: where they come from, in words.
        notes: what was noticed on the way.
        names: class as the data writes it -> name and index, as far as the data says.
    """

    items: Sequence[Item] | Iterator[Item]
    description: str
    notes: tuple[str, ...] = ()
    names: dict[Any, tuple[str, int | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Tree:
    """Files of a folder or a zip file; hidden ones are not seen.

    Args:
        files: paths below the root, sorted, with `/` between parts.
        folders: the same of its folders.
        read: gives the bytes of a file.
        description: what to call it.
        root: the folder, where it is one.
    """

    files: tuple[str, ...]
    folders: tuple[str, ...]
    read: Callable[[str], bytes]
    description: str
    root: Path | None

    @property
    def images(self) -> list[str]:
        """The files that are images by their ending."""
        return [name for name in self.files if PurePosixPath(name).suffix.lower() in _SUFFIXES]

    def below(self, folder: str) -> Tree:
        """What lies in one of its folders."""
        prefix = f"{folder}/"
        return Tree(
            tuple(name.removeprefix(prefix) for name in self.files if name.startswith(prefix)),
            tuple(name.removeprefix(prefix) for name in self.folders if name.startswith(prefix)),
            lambda name: self.read(prefix + name),
            f"{self.description}/{folder}",
            None if self.root is None else self.root / folder,
        )

    def split(self, split: str | None) -> Tree:
        """The folder of a split; all where none was asked for.

        Raises:
            RequestError: there is no folder of that name.
        """
        if split is None:
            return self
        if split not in self.folders:
            there = ", ".join(name for name in self.folders if "/" not in name) or "none"
            raise RequestError(
                f"split='{split}' was asked for, but {self.description} has no folder of that "
                f"name (its folders: {there}); leave it out or name one of those"
            )
        return self.below(split)

    def item(self, name: str, told: Any = None) -> Item:
        """An image of the tree."""
        return Item(name, lambda: decoded(self.read(name)), told)


@contextmanager
def open_tree(path: Path) -> Iterator[Tree]:
    """Look into a folder or a zip file, which stays open inside the block.

    Raises:
        DataError: the path is neither.
    """
    if path.is_dir():
        found = [place for place in sorted(path.rglob("*")) if not _hidden(place, path)]
        yield Tree(
            tuple(place.relative_to(path).as_posix() for place in found if not place.is_dir()),
            tuple(place.relative_to(path).as_posix() for place in found if place.is_dir()),
            lambda name: (path / name).read_bytes(),
            str(path),
            path,
        )
        return
    try:
        opened = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(
            f"cannot read images from {path} ({error}); give a folder or a .zip file of images"
        ) from error
    with opened:
        names = sorted(name for name in opened.namelist() if not _hidden(PurePosixPath(name)))
        parents = {str(place) for name in names for place in PurePosixPath(name).parents}
        folders = {name.rstrip("/") for name in names if name.endswith("/")} | (parents - {"."})
        files = tuple(name for name in names if not name.endswith("/"))
        yield Tree(files, tuple(sorted(folders)), opened.read, str(path), None)


def decoded(source: Any) -> Any:
    """The image in what a file, a table or a user holds.

    Args:
        source: bytes, a path, the `{"bytes", "path"}` of the `datasets` library, an array
            (H, W, C) of uint8, a Pillow image, or a tensor (C, H, W), which is passed on.

    Returns:
        A Pillow image, read completely and turned the way its camera was held, or the tensor.

    Raises:
        OSError, ValueError, SyntaxError: Pillow cannot read it.
        DataError: it is nothing that could be an image.
    """
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    if isinstance(source, torch.Tensor):
        return source
    if isinstance(source, dict) and {"bytes", "path"} & set(source):
        source = source.get("bytes") or source.get("path")
    if isinstance(source, bytes):
        source = Image.open(io.BytesIO(source))
    elif isinstance(source, str | Path):
        source = Image.open(io.BytesIO(Path(source).read_bytes()))
    elif isinstance(source, np.ndarray):
        source = Image.fromarray(source)
    if not isinstance(source, Image.Image):
        raise DataError(
            f"an image was expected and a {type(source).__name__} found; give Pillow images, "
            "paths of image files or tensors of pixel values"
        )
    source.load()
    return ImageOps.exif_transpose(source)


def _hidden(place: Path | PurePosixPath, root: Path | None = None) -> bool:
    parts = (place if root is None else place.relative_to(root)).parts
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)
