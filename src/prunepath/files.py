"""Writing that is all or nothing: a reader sees the old content or the new, never half of it.

Everything is first written beside its target, on the same disk, and renamed into place at the end.
An exception, Ctrl-C included, removes what was begun. A full disk or a missing permission becomes
a `DiskError` that says what to do.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prunepath.errors import DiskError
from prunepath.humanize import format_bytes

__all__ = [
    "atomic_directory",
    "atomic_write",
    "disk_errors",
    "link_or_copy",
    "refuse_used",
    "require_space",
]

# What the operating system says -> what it means and what to do about it.
_ADVICE = {
    errno.ENOSPC: "no space is left on the disk; free some space or choose another place",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another place",
    errno.EACCES: "permission is denied; choose a place you may write to",
    errno.EPERM: "the operation is not permitted; choose a place you may write to",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.ENOTDIR: "a part of its path is a file, not a folder; choose another place",
    errno.EEXIST: "a file is in the way; choose another place",
    errno.EISDIR: "it is a folder; choose the name of a file",
    errno.ENAMETOOLONG: "its name is too long; choose a shorter one",
}
# Libraries written in Rust or C++ (safetensors, torch) report a full disk in words only.
_FULL_DISK_WORDS = ("No space left on device", "os error 28", "Disk quota exceeded")


@contextmanager
def disk_errors(target: str | os.PathLike[str]) -> Iterator[None]:
    """Turn failures of the disk inside the block into a `DiskError` about `target`.

    Args:
        target: the file or folder the user asked for.

    Raises:
        DiskError: no space, no permission, or an impossible path.

    Other exceptions, a missing input file for example, pass unchanged.
    """
    try:
        yield
    except DiskError:
        raise
    except OSError as error:
        if error.errno not in _ADVICE:
            raise
        raise DiskError(f"cannot write {target}: {_ADVICE[error.errno]}") from error
    except Exception as error:
        if any(words in str(error) for words in _FULL_DISK_WORDS):
            raise DiskError(f"cannot write {target}: {_ADVICE[errno.ENOSPC]}") from error
        raise


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write one file completely or not at all; an existing file is replaced.

    Args:
        path: the file to write; missing parent folders are made.

    Yields:
        A path beside the target, with the same suffix, to write to.

    Raises:
        DiskError: the file cannot be written there.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> target = Path(folder.name) / "table.csv"
        >>> with atomic_write(target) as beside:
        ...     _ = beside.write_text("ratio,perplexity")
        >>> [found.name for found in target.parent.iterdir()]
        ['table.csv']
        >>> folder.cleanup()
    """
    path = Path(path)
    with disk_errors(path):
        if path.is_dir():
            raise DiskError(f"cannot write {path}: {_ADVICE[errno.EISDIR]}")
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.stem}.partial-{secrets.token_hex(4)}{path.suffix}")
        try:
            yield beside
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


@contextmanager
def atomic_directory(target: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Fill one folder completely or not at all.

    Args:
        target: the folder to make; it may exist if it is empty. Missing parents are made.
        overwrite: replace a folder that is not empty. The old one stays untouched until the new
            one is complete.

    Yields:
        A new empty folder beside the target, to write into.

    Raises:
        DiskError: the target holds files and `overwrite` is False, is a file, or cannot be written.

    Example:
        >>> import tempfile
        >>> root = tempfile.TemporaryDirectory()
        >>> with atomic_directory(Path(root.name) / "small") as folder:
        ...     _ = (folder / "config.json").write_text("{}")
        >>> [found.name for found in (Path(root.name) / "small").iterdir()]
        ['config.json']
        >>> root.cleanup()
    """
    # A link is followed, so that what it points to is replaced and the link itself stays.
    target = Path(target)
    place = target.resolve()
    with disk_errors(target):
        _refuse_used(target, place, overwrite)
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f".{place.name}.partial-{secrets.token_hex(4)}")
        beside.mkdir()
        try:
            yield beside
            # Asked again: someone may have written there in the meantime.
            _refuse_used(target, place, overwrite)
            _swap(beside, place)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise


def link_or_copy(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Make the same file lie at a second place, without a second copy where the disk can do that.

    Args:
        source: a file, or a link to one.
        target: where it is to lie as well; nothing may be there yet.

    Example:
        >>> import tempfile
        >>> root = tempfile.TemporaryDirectory()
        >>> one, other = Path(root.name) / "one", Path(root.name) / "other"
        >>> _ = one.write_text("same")
        >>> link_or_copy(one, other)
        >>> other.read_text()
        'same'
        >>> root.cleanup()
    """
    whole = Path(source).resolve()
    try:
        Path(target).hardlink_to(whole)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(whole, target)


def require_space(path: str | os.PathLike[str], required_bytes: int) -> None:
    """Fail before an expensive step when its result would not fit on the disk.

    Args:
        path: where the result will be written; it need not exist yet.
        required_bytes: how much will be written.

    Raises:
        DiskError: less is free than required.

    Example:
        >>> require_space(".", 1)
    """
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    free_bytes = shutil.disk_usage(place).free
    if free_bytes < required_bytes:
        raise DiskError(
            f"writing {path} needs {format_bytes(required_bytes)}, but only "
            f"{format_bytes(free_bytes)} are free there; free some space or choose another place"
        )


def refuse_used(target: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Fail before an expensive step when its folder could not be written in the end.

    Raises:
        DiskError: the target holds files and `overwrite` is False, or is a file.
    """
    _refuse_used(Path(target), Path(target).resolve(), overwrite)


def _refuse_used(target: Path, place: Path, overwrite: bool) -> None:
    if place.is_dir():
        if not overwrite and any(place.iterdir()):
            raise DiskError(
                f"the folder {target} already exists and is not empty; "
                "choose another folder, or overwrite it (--overwrite, overwrite=True)"
            )
    elif place.exists():
        raise DiskError(f"cannot make the folder {target}: a file has that name; choose another")


def _swap(beside: Path, place: Path) -> None:
    """Rename the new folder into place; the old one comes back if that fails."""
    if not place.exists():
        beside.rename(place)
        return
    old = place.with_name(f".{place.name}.partial-old-{secrets.token_hex(4)}")
    place.rename(old)
    try:
        beside.rename(place)
    except BaseException:
        old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)
