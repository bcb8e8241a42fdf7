"""Real models of other tasks than language: the task's metric by method, ratio and refit.

    python -m benchmarks tasks [--models vit,sts] [--methods spp,fisher] [--ratios 0.2,0.4]

Every method searches for itself, with the default counts of the task unless told otherwise, on
calibration data without labels. Rows without a refit cut the same paths. A row is searched again
when the counts differ from those of the rows there are.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from benchmarks.models import MODELS, RealModel, chosen
from benchmarks.protocol import OUT, Rows

METHODS = ("spp", "fisher", "magnitude")
REFITS = ("sequential", "none")
DISTANCE_SAMPLES = 256  # enough for two digits of a mean, and cheaper than all


def main(arguments: list[str]) -> None:
    """Measure everything that has no row yet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks tasks", description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--ratios", help="by default each model's own")
    parser.add_argument("--windows", type=int, help="calibration samples")
    parser.add_argument("--moment-windows", type=int, help="further samples, forward only")
    options = parser.parse_args(arguments)
    rows = Rows("tasks")
    for name in chosen(options.models):
        real = MODELS[name]
        given = options.ratios.split(",") if options.ratios else real.ratios
        counts = search_counts(real, options.windows, options.moment_windows)
        _model(rows, real, options.methods.split(","), [float(item) for item in given], counts)


def search_counts(
    real: RealModel, windows: int | None = None, moments: int | None = None
) -> dict[str, int]:
    """What a search is asked for, the task's own counts where nothing was given."""
    from prunepath.tasks.task import TASKS

    usual = TASKS[real.task].counts
    return {
        "windows": usual.windows if windows is None else windows,
        "moment_windows": usual.moments if moments is None else moments,
    }


def _model(
    rows: Rows, real: RealModel, methods: list[str], ratios: list[float], counts: dict[str, int]
) -> None:
    missing: dict[str, list[tuple[str, float]]] = {}
    for method in methods:
        for refit in REFITS:
            for ratio in ratios:
                key = {"method": method, "refit": refit, "ratio": ratio, **counts}
                if not rows.has(model=real.title, **key):
                    missing.setdefault(method, []).append((refit, ratio))
    if not missing:
        return
    reference = _Reference(real)
    dense = reference.dense_value(rows)
    for method, wanted in missing.items():
        folder, seconds = path_folder(real, method, **counts)
        for refit, ratio in wanted:
            made = _made(reference, folder, refit, ratio)
            key = {"model": real.title, "method": method, "refit": refit, "ratio": ratio}
            more = {"dense": dense, "search_seconds": seconds, **counts}
            rows.add({**key, **made, **more})


def _made(reference: _Reference, folder: Path, refit: str, ratio: float) -> dict[str, Any]:
    """Cut one size in memory and measure it."""
    from prunepath.allocation.budget import Budget
    from prunepath.api.workshop import Workshop

    shop = Workshop(folder, refit=refit, sequence_length=reference.real.tokens)
    shop.open(reference.opened.model, tokenizer=False)
    start = time.perf_counter()
    made = shop.make(Budget.from_ratio(ratio))
    elapsed = time.perf_counter() - start
    return {
        "reached_ratio": made.allocation.ratio,
        "params": made.allocation.cost.params,
        "macs": made.allocation.cost.macs,
        "stated_for": made.stated_for,
        **reference.quality(made.model),
        "strength": made.refit.get("strength"),
        "extract_seconds": elapsed,
    }


def path_folder(
    real: RealModel, method: str, *, windows: int, moment_windows: int
) -> tuple[Path, float]:
    """The path of a method, searched once as a user would.

    Args:
        real: the model.
        method: registered method name.
        windows: calibration samples.
        moment_windows: further samples, forward only.

    Returns:
        Its folder, and the wall seconds of its search.
    """
    import prunepath

    folder = OUT / "tasks" / f"{real.title}-{method}-{windows}-{moment_windows}"
    clock = folder / "seconds.json"
    if not clock.exists():
        start = time.perf_counter()
        prunepath.search(
            real.folder(),
            output=folder,
            data=real.data(real.calibration),
            task=real.task,
            method=method,
            windows=windows,
            moment_windows=moment_windows,
            dtype="float32",
            overwrite=True,
        )
        clock.write_text(json.dumps(time.perf_counter() - start))
    return folder, float(json.loads(clock.read_text()))


class _Reference:
    """The dense model, the samples its cuts are measured on, and its own answers to them."""

    def __init__(self, real: RealModel) -> None:
        from prunepath.checkpoint.source import open_model
        from prunepath.statistics.dense_answers import DenseAnswers
        from prunepath.tasks.task import DataRequest

        self.real = real
        self.opened = open_model(real.folder(), task=real.task, dtype="float32")
        self.task = self.opened.task
        request = DataRequest(count=None, labels=True)
        self.samples = self.task.samples(self.opened, real.data(real.evaluation), request)
        self.answers = DenseAnswers(self.opened.model, self.task, self.samples)
        self.answers.thin_(DISTANCE_SAMPLES, num_bytes=10**9)

    def dense_value(self, rows: Rows) -> float:
        """The dense model's metric, measured once and kept as a row."""
        key = {"model": self.real.title, "method": "dense"}
        if not rows.has(**key):
            found = self.task.evaluate(self.opened.model, self.samples)
            value = {"metric": found.name, "value": found.value, "samples": found.samples}
            rows.add({**key, "ratio": 0.0, **value})
        return float(next(row for row in rows.rows if key.items() <= row.items())["value"])

    def quality(self, model: Any) -> dict[str, Any]:
        """Metric of a cut model, and the mean distance of its answers to the dense ones."""
        found = self.task.evaluate(model, self.samples)
        return {
            "metric": found.name,
            "value": found.value,
            "samples": found.samples,
            "distance": self.answers.distance(model, self.answers.first()),
            "distance_samples": self.answers.samples,
        }
