"""Recordings: every width of PCM, other rates, transcripts beside, unreadable files named."""

from __future__ import annotations

import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunepath.data.audio import Recordings, read_recordings
from prunepath.data.sound import read_sound, resampled
from prunepath.errors import DataError, MissingExtraError

RATE = 16_000
TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE // 4) / RATE)


def write_wave(path: Path, sound: Any = TONE, *, rate: int = RATE, width: int = 2) -> Path:
    """A PCM file; a sound of two dimensions has a column per channel."""
    scale = 2 ** (8 * width - 1)
    values = np.round(np.asarray(sound) * (scale - 1)).astype(np.int64)
    values = values + scale if width == 1 else values
    raw = values.astype("<i8").reshape(-1, 1).view(np.uint8)[:, :width].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if values.ndim == 1 else values.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw)
    return path


def read(data: Any, **request: Any) -> Recordings:
    return read_recordings(data, **{"rate": RATE, "count": None, **request})


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_widths(tmp_path: Path, width: int) -> None:
    sound, rate = read_sound(write_wave(tmp_path / "a.wav", width=width), "a.wav")
    assert rate == RATE
    assert sound.dtype == np.float32
    np.testing.assert_allclose(sound, TONE, atol=2.0 ** (2 - 8 * width) + 1e-6)


def test_channels_are_averaged(tmp_path: Path) -> None:
    file = write_wave(tmp_path / "a.wav", np.stack([TONE, -TONE / 2], axis=1))
    np.testing.assert_allclose(read_sound(file, "a.wav")[0], TONE / 4, atol=1e-3)


def test_other_rates(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    sound = resampled(TONE.astype(np.float32), RATE, RATE // 2)
    assert len(sound) == len(TONE) // 2
    np.testing.assert_allclose(sound[100:-100], TONE[::2][100:-100], atol=1e-2)


def test_other_rates_need_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(
        MissingExtraError, match=r"from 8000 to 16000 Hz needs .*prunepath\[speech\]"
    ):
        resampled(TONE.astype(np.float32), 8000, RATE)


def test_folder_with_texts_beside(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_wave(tmp_path / f"{name}.wav")
        (tmp_path / f"{name}.txt").write_text(f"the {name}\n", encoding="utf-8")
    found = read(tmp_path, labels=True)
    assert [item.transcript for item in found.items] == ["the a", "the b"]
    assert found.description == f"the folder {tmp_path}"


@pytest.mark.parametrize("where", ["folder", "table"])
def test_table_of_files(tmp_path: Path, where: str) -> None:
    (tmp_path / "sounds").mkdir()
    write_wave(tmp_path / "sounds" / "a.wav")
    table = tmp_path / "metadata.csv"
    table.write_text('file_name,transcription\nsounds/a.wav,"one, two"\n', encoding="utf-8")
    (item,) = read(tmp_path if where == "folder" else table, labels=True).items
    assert item.transcript == "one, two"
    assert len(item.sound) == len(TONE)


def test_rows_that_hold_the_sound() -> None:
    rows = [{"audio": {"array": TONE, "sampling_rate": RATE}, "text": "a tone"}]
    (item,) = read(rows).items
    assert item.transcript == "a tone"
    with pytest.raises(DataError, match="row 0 holds a int, not a sound"):
        read([{"audio": 3}])


def test_unreadable_files_are_named_and_counted(tmp_path: Path) -> None:
    write_wave(tmp_path / "good.wav")
    (tmp_path / "bad.wav").write_bytes(b"RIFF but no more")
    write_wave(tmp_path / "empty.wav", np.zeros(0))
    found = read(tmp_path)
    assert len(found.items) == 1
    assert found.notes[0].startswith("2 recordings passed over: ")
    assert "bad.wav cannot be read" in found.notes[0]
    assert "empty.wav is empty" in found.notes[0]
    with pytest.raises(
        DataError, match="2 recordings were asked for, but .* has 1 that can be read"
    ):
        read(tmp_path, count=2)


def test_draw_by_seed(tmp_path: Path) -> None:
    for index in range(8):
        write_wave(tmp_path / f"{index}.wav", TONE[: 100 + index])
    lengths = [
        [len(item.sound) for item in read(tmp_path, count=3, seed=seed).items] for seed in (0, 0, 1)
    ]
    assert lengths[0] == lengths[1] != lengths[2]
    in_order = [len(item.sound) for item in read(tmp_path, count=None).items]
    drawn = [len(item.sound) for item in read(tmp_path, count=5, extra=9).items]
    assert sorted(drawn) == in_order != drawn


def test_complaints(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder or table of recordings"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no audio file \(\.flac, \.mp3, \.ogg, \.wav\)"):
        read(tmp_path)
    write_wave(tmp_path / "a.wav")
    with pytest.raises(
        DataError, match=r"a\.wav has no transcript, which is needed here; write it"
    ):
        read(tmp_path, labels=True)
    table = tmp_path / "list.csv"
    table.write_text("file,text\nz.wav,a\n", encoding="utf-8")
    with pytest.raises(
        DataError, match=r"has 0 that can be read \(1 recordings passed over: .*z\.wav"
    ):
        read(table)


def test_flac_needs_soundfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    with pytest.raises(
        MissingExtraError, match=r"reading a\.flac, which is no PCM WAV file, needs"
    ):
        read(tmp_path)
