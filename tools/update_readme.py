"""Put what the demo printed into README.md: its table between the marks, its curve beside it.

Run as `python tools/update_readme.py` after `make demo`, in the folder of the project.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

START, END = "<!-- demo-table -->", "<!-- /demo-table -->"


def filled(readme: str, table: str) -> str:
    """The text with the table between the marks."""
    before, start, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"README.md lacks the marks {START} and {END}; put them back")
    return f"{before}{START}\n{table.strip()}\n{END}{after}"


def main(root: Path) -> None:
    """Update README.md and docs/images/curve.png of the project in that folder."""
    made = root / "out" / "demo"
    for name in ("table.md", "curve.png"):
        if not (made / name).is_file():
            sys.exit(f"there is no {made / name}; run `make demo` first")
    readme = root / "README.md"
    table = (made / "table.md").read_text(encoding="utf-8")
    readme.write_text(filled(readme.read_text(encoding="utf-8"), table), encoding="utf-8")
    picture = root / "docs" / "images" / "curve.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(made / "curve.png", picture)
    print(f"updated {readme} and {picture}")


if __name__ == "__main__":
    main(Path.cwd())
