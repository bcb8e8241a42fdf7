"""Writing is all or nothing, and every failure of a disk says what to do."""

from __future__ import annotations

import errno
import os
from collections import namedtuple
from pathlib import Path

import pytest

from prunepath import files
from prunepath.errors import DiskError
from prunepath.files import atomic_directory, atomic_write, disk_errors, require_space


def names(folder: Path) -> list[str]:
    return sorted(found.name for found in folder.iterdir())


def test_directory_appears_complete(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    with atomic_directory(target) as folder:
        (folder / "weights").write_text("all of them")
        assert not target.exists()
        assert folder.parent == target.parent
    assert names(target) == ["weights"]
    assert names(target.parent) == ["model"]


def test_empty_directory_may_exist(tmp_path: Path) -> None:
    with atomic_directory(tmp_path / "model") as folder:
        (folder / "a").touch()
    (tmp_path / "empty").mkdir()
    with atomic_directory(tmp_path / "empty") as folder:
        (folder / "b").touch()
    assert names(tmp_path / "empty") == ["b"]


def test_used_directory_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    ran = False
    message = "already exists and is not empty; choose another folder, or overwrite it"
    with pytest.raises(DiskError, match=message), atomic_directory(tmp_path):
        ran = True
    assert not ran
    assert names(tmp_path) == ["old"]


def test_overwrite_replaces_everything(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    with atomic_directory(target, overwrite=True) as folder:
        (folder / "new").touch()
        assert names(target) == ["old"]
    assert names(target) == ["new"]
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, OSError])
def test_any_exception_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(error), atomic_directory(target, overwrite=True) as folder:
        (folder / "half").touch()
        raise error
    assert names(target) == ["old"]
    assert names(tmp_path) == ["model"]


def test_old_directory_comes_back_when_the_rename_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    rename = Path.rename

    def failing(self: Path, to: Path) -> Path:
        if to == target and "old" not in self.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", failing)
    with (
        pytest.raises(DiskError, match="no space is left"),
        atomic_directory(target, overwrite=True) as folder,
    ):
        (folder / "new").touch()
    assert names(target) == ["old"]
    assert names(tmp_path) == ["model"]


def test_someone_else_writing_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with pytest.raises(DiskError, match="not empty"), atomic_directory(target):
        target.mkdir()
        (target / "theirs").touch()
    assert names(tmp_path) == ["model"]
    assert names(target) == ["theirs"]


def test_directory_where_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "model").touch()
    with (
        pytest.raises(DiskError, match="a file has that name; choose another"),
        atomic_directory(tmp_path / "model", overwrite=True),
    ):
        pass


def test_directory_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = "cannot write .*model: a file is in the way; choose another place"
    target = tmp_path / "file" / "model"
    with pytest.raises(DiskError, match=message), atomic_directory(target):
        pass


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_directory(tmp_path / "link") as folder:
        (folder / "a").touch()
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "real") == ["a"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    with atomic_directory(tmp_path / "model"):
        pass
    assert (tmp_path / "model").stat().st_mode == plain.stat().st_mode


def test_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "curve.png"
    path.write_text("old")
    with atomic_write(path) as beside:
        assert beside.suffix == ".png"
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["curve.png"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_interrupted_file_keeps_the_old_content(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "curve.png"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path) as beside:
        beside.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["curve.png"]


def test_file_where_a_folder_is(tmp_path: Path) -> None:
    message = "it is a folder; choose the name of a file"
    with pytest.raises(DiskError, match=message), atomic_write(tmp_path):
        pass


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "no space is left on the disk; free some space"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EACCES, "permission is denied; choose a place you may write to"),
        (errno.EROFS, "the file system is read-only"),
    ],
)
def test_what_the_system_says_becomes_advice(tmp_path: Path, code: int, words: str) -> None:
    target = tmp_path / "model"
    message = f"cannot write .*model: {words}"
    with pytest.raises(DiskError, match=message), atomic_directory(target) as folder:
        (folder / "half").touch()
        raise OSError(code, os.strerror(code))
    assert names(tmp_path) == []


def test_full_disk_reported_in_words_only() -> None:
    with pytest.raises(DiskError, match="cannot write out: no space is left"), disk_errors("out"):
        raise RuntimeError("I/O error: No space left on device (os error 28)")


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(FileNotFoundError), disk_errors("out"):
        Path("no/such/input").read_text()
    with pytest.raises(RuntimeError, match="^broken$"), disk_errors("out"):
        raise RuntimeError("broken")


def test_require_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage(10**9, 0, 100_000_000))
    require_space(tmp_path / "not" / "yet", 100_000_000)
    message = "needs 269 MB, but only 100 MB are free there; free some space"
    with pytest.raises(DiskError, match=message):
        require_space(tmp_path / "not" / "yet", 269_000_000)


def test_a_really_full_disk(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    message = "no space is left"
    with pytest.raises(DiskError, match=message), disk_errors(tmp_path), full.open("wb") as file:
        file.write(b"x" * 10_000)
