"""One recording: read it, make one channel of it, bring it to another rate.

PCM WAV needs nothing but the standard library; other formats are read by `soundfile`.

Shapes: S samples of sound, C channels.
"""

from __future__ import annotations

import math
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.errors import DataError
from prunepath.extras import require_extra

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["read_sound", "resampled"]


def read_sound(source: Any, where: str) -> tuple[NDArray[np.float32], int]:
    """The sound of a recording, as one channel.

    Args:
        source: a file, or a mapping with `array`, (S,) or (C, S), and `sampling_rate`, or with
            `path`.
        where: what to call it in a message.

    Returns:
        Values between -1 and 1, (S,), and samples per second.

    Raises:
        DataError: it cannot be read, is empty, or holds NaN.
        MissingExtraError: it is no PCM WAV file, and `soundfile` is not installed.
    """
    import numpy as np

    if isinstance(source, str | Path):
        sound, rate = _file(Path(source), where)
    elif hasattr(source, "keys") and source.get("array") is not None:
        sound, rate = np.asarray(source["array"], dtype=np.float32), int(source["sampling_rate"])
        sound = sound.mean(0) if sound.ndim == 2 else sound
    elif hasattr(source, "keys") and source.get("path"):
        sound, rate = _file(Path(source["path"]), where)
    else:
        raise DataError(
            f"{where} holds a {type(source).__name__}, not a sound; give a path, or a mapping with "
            "array and sampling_rate"
        )
    if sound.ndim != 1 or not len(sound) or not np.isfinite(sound).all():
        raise DataError(f"{where} is empty or holds NaN; remove or replace it")
    return sound, rate


def resampled(sound: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    """A sound at another rate, (S * wanted / rate,).

    Args:
        sound: one channel, (S,).
        rate: its samples per second.
        wanted: samples per second to have.

    Raises:
        MissingExtraError: the rates differ and `scipy` is not installed.
    """
    import numpy as np

    if rate == wanted:
        return sound
    scipy = require_extra("scipy", "speech", f"bringing sound from {rate} to {wanted} Hz")
    common = math.gcd(rate, wanted)
    changed = scipy.signal.resample_poly(sound, wanted // common, rate // common)
    return np.asarray(changed, dtype=np.float32)


def _file(path: Path, where: str) -> tuple[NDArray[np.float32], int]:
    if not path.is_file():
        raise DataError(f"{where} is not there; mend its path")
    if path.suffix.lower() == ".wav":
        try:
            return _pcm(path)
        except (wave.Error, EOFError) as error:
            if "unknown format" not in str(error):
                raise DataError(f"{where} cannot be read ({error or 'it ends early'})") from None
    library = require_extra(
        "soundfile", "speech", f"reading {path.name}, which is no PCM WAV file,"
    )
    try:
        sound, rate = library.read(path, dtype="float32", always_2d=True)
    except (RuntimeError, OSError) as error:
        raise DataError(f"{where} cannot be read ({error})") from None
    return sound.mean(1), int(rate)


def _pcm(path: Path) -> tuple[NDArray[np.float32], int]:
    """A WAV file of 8 to 32 bits a sample."""
    import numpy as np

    with wave.open(str(path), "rb") as file:
        width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
        raw = np.frombuffer(file.readframes(file.getnframes()), dtype=np.uint8)
    raw = raw[: len(raw) // (width * channels) * width * channels]
    if width == 1:  # the only width without a sign
        values = (raw.astype(np.float64) - 128) / 2**7
    else:
        # Lower bytes are filled with zeros up to 32 bits, so that every width has one scale.
        padded = np.zeros((len(raw) // width, 4), dtype=np.uint8)
        padded[:, 4 - width :] = raw.reshape(-1, width)
        values = padded.view("<i4").ravel() / 2**31
    return values.reshape(-1, channels).mean(1).astype(np.float32), rate
