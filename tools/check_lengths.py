"""Fail when a Python file is longer than the house limit: one idea per file.

Run as `python tools/check_lengths.py src tests`; folders that do not exist are passed over.
"""

from __future__ import annotations

import sys
from pathlib import Path

LIMIT = 500


def too_long(folders: list[str]) -> list[str]:
    """The files over the limit, each as `path: number of lines`."""
    found = []
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.py")):
            num_lines = len(path.read_text(encoding="utf-8").splitlines())
            if num_lines > LIMIT:
                found.append(f"{path}: {num_lines} lines, at most {LIMIT} allowed; split it")
    return found


if __name__ == "__main__":
    problems = too_long(sys.argv[1:])
    print("\n".join(problems) if problems else "file lengths: fine")
    sys.exit(1 if problems else 0)
