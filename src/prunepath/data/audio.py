"""Recordings of speech: a folder of audio files, or a table of them, with what is said.

Transcripts lie in a `.txt` file of the same name beside each recording, or in a `metadata.csv`
(`.tsv`, `.jsonl`) in the folder with the columns `file_name` and `transcription`. Files that
cannot be read are passed over and named in a remark.

Shapes: S samples of sound.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.data.columns import Columns
from prunepath.data.sound import read_sound, resampled
from prunepath.data.tables import read_table
from prunepath.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Recording", "Recordings", "read_recordings"]

_SUFFIXES = frozenset({".flac", ".mp3", ".ogg", ".wav"})
_TABLES = ("metadata.csv", "metadata.tsv", "metadata.jsonl")
_COLUMNS = Columns(
    texts=(("file_name",), ("file",), ("path",), ("audio",)),
    labels=("transcription", "transcript", "text", "sentence"),
    by_position={1: 1, 2: 1},
)
# How many unreadable files a remark names.
_NUM_NAMED = 3


@dataclass(frozen=True, eq=False)
class Recording:
    """One recording.

    Args:
        sound: between -1 and 1, one channel, (S,), float32, at the rate that was asked for.
        transcript: what is said; None where nobody wrote it down.
        where: what to call it in a message.
    """

    sound: NDArray[np.float32]
    transcript: str | None
    where: str


@dataclass(frozen=True, eq=False)
class Recordings:
    """Recordings, and what to call them.

    Args:
        items: at least one.
        description: where they come from, in words.
        notes: files that were passed over, and why.
    """

    items: tuple[Recording, ...]
    description: str
    notes: tuple[str, ...] = ()


def read_recordings(
    data: Any,
    *,
    rate: int,
    count: int | None,
    extra: int = 0,
    field: str = "",
    label_field: str = "",
    labels: bool = False,
    seed: int = 0,
) -> Recordings:
    """Read recordings, and transcripts where there are some.

    Args:
        data: a folder of audio files, a table of their paths (relative to the table), or rows
            `{"audio": {"array": ..., "sampling_rate": ...}, "text": ...}`.
        rate: samples of sound per second to bring them to.
        count: recordings that must be readable; None takes all, in their order.
        extra: further ones to take where there are more.
        field: column of the paths; empty: the usual names.
        label_field: column of the transcripts; empty: the usual names.
        labels: whether every recording must have a transcript.
        seed: of the draw among all recordings, and of their order, unless all are asked for.

    Raises:
        DataError: there is nothing to read, too little, or a transcript is missing.
        MissingExtraError: a file needs `soundfile`, or a change of rate `scipy`.
    """
    if isinstance(data, str | os.PathLike):
        found, description = _listed(Path(data).expanduser(), field, label_field, labels)
    else:
        found, description = list(_rows(data, field, label_field)), "recordings given as rows"
    wanted = len(found) if count is None else count + extra
    if count is not None:  # the parts of a search are cut one after the other, and files are sorted
        found = random.Random(seed).sample(found, len(found))
    items: list[Recording] = []
    skipped: list[str] = []
    for source, transcript, where in found:
        if len(items) == wanted:
            break
        if labels and not (transcript or "").strip():
            raise DataError(
                f"{where} has no transcript, which is needed here; write it to a .txt file of the "
                "same name, or to metadata.csv"
            )
        try:
            sound, own_rate = read_sound(source, where)
        except DataError as error:
            skipped.append(str(error))
            continue
        items.append(Recording(resampled(sound, own_rate, rate), transcript, where))
    notes = _remark(skipped)
    if len(items) < max(count or 0, 1):
        asked = "recordings" if count is None else f"{count} recordings"
        reason = f" ({notes[0]})" if notes else ""
        raise DataError(
            f"{asked} were asked for, but {description} has {len(items)} that can be read{reason}; "
            "give more of them, or ask for fewer"
        )
    return Recordings(tuple(items), description, notes)


_Found = tuple[Any, str | None, str]
"""A path or a sound with its rate, the transcript, and what to call it."""


def _listed(path: Path, field: str, label_field: str, labels: bool) -> tuple[list[_Found], str]:
    """The files of a folder or of a table."""
    if path.is_file():
        return _from_table(path, field, label_field, labels), str(path)
    if not path.is_dir():
        raise DataError(
            f"there is no folder or table of recordings '{path}'; give a folder of .wav files, or "
            "a .csv file with their paths"
        )
    tables = [path / name for name in _TABLES if (path / name).is_file()]
    if tables:
        return _from_table(tables[0], field, label_field, labels), f"the folder {path}"
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise DataError(
            f"the folder {path} holds no audio file ({', '.join(sorted(_SUFFIXES))}); name another"
        )
    return [(file, _beside(file), str(file)) for file in files], f"the folder {path}"


def _from_table(path: Path, field: str, label_field: str, labels: bool) -> list[_Found]:
    table = read_table(
        path, _COLUMNS, count=None, field=field, label_field=label_field, labels=labels
    )
    found: list[_Found] = []
    for row in table.rows:
        file = path.parent / row.texts[0]
        said = None if row.label is None else str(row.label)
        found.append((file, said, f"{file} ({row.where})"))
    return found


def _beside(file: Path) -> str | None:
    text = file.with_suffix(".txt")
    return text.read_text(encoding="utf-8-sig").strip() if text.is_file() else None


def _rows(data: Any, field: str, label_field: str) -> Iterator[_Found]:
    """Rows that hold the sound itself, as the `datasets` library decodes it."""
    chosen = None
    for index, row in enumerate(data):
        where = f"row {index}"
        if not hasattr(row, "keys"):
            raise DataError(
                f"{where} is a {type(row).__name__}; give mappings of sound and transcript"
            )
        if chosen is None:
            chosen = _COLUMNS.choose(
                row, field=field, label_field=label_field, labels=False, source="the rows"
            )
        said = row.get(chosen.label) if chosen.label else None
        yield row.get(chosen.texts[0]), None if said is None else str(said), where


def _remark(skipped: list[str]) -> tuple[str, ...]:
    if not skipped:
        return ()
    more = f"; and {len(skipped) - _NUM_NAMED} more" if len(skipped) > _NUM_NAMED else ""
    return (f"{len(skipped)} recordings passed over: {'; '.join(skipped[:_NUM_NAMED])}{more}",)
