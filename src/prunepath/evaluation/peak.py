"""How much memory a stretch of work took at its peak.

On a GPU what the allocator handed out there; on a CPU the process's resident set, which counts the
interpreter and every loaded model. Linux keeps the mark and lets a process lower it to where it is;
elsewhere nothing is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["Peak", "peak_memory"]

_PROCESS = Path("/proc/self")


@dataclass
class Peak:
    """What was measured, once the block is done.

    Args:
        num_bytes: bytes at the peak; None where it cannot be told.
    """

    num_bytes: int | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """Measure the block.

    Args:
        device: where the work is done.

    Yields:
        Filled when the block ends.

    Example:
        >>> with peak_memory(torch.device("cpu")) as peak:
        ...     _ = torch.zeros(1000)
        >>> peak.num_bytes is None or peak.num_bytes > 1_000_000
        True
    """
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.num_bytes = int(torch.cuda.max_memory_allocated(device))
        return
    lowered = _lower_mark()
    yield peak
    peak.num_bytes = _mark() if lowered else None


def _lower_mark() -> bool:
    """Set the kernel's high-water mark to what is resident now."""
    try:
        (_PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _mark() -> int | None:
    for line in (_PROCESS / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return None
