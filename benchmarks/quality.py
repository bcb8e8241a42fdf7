"""Perplexity by method, ratio, layout and refit, from one pass of statistics.

python -m benchmarks quality [--ratios 0.1,0.2] [--methods spp,fisher]
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.protocol import (
    OUT,
    RATIOS,
    WINDOW,
    WINDOWS,
    Rows,
    data_folder,
    evaluation_windows,
    opened,
    text,
)

# name -> (method, settings, layout, refit)
VARIANTS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "spp": ("spp", {}, "per-layer", "sequential"),
    "spp, uniform": ("spp", {}, "uniform", "sequential"),
    "spp, one-shot refit": ("spp", {}, "per-layer", "moments"),
    "spp, no refit": ("spp", {}, "per-layer", "none"),
    "spp, fisher curvature": ("spp", {"curvature": "fisher"}, "per-layer", "sequential"),
    "spp, flow": ("spp", {"curvature": "fisher", "solver": "flow"}, "per-layer", "sequential"),
    "fisher": ("fisher", {}, "per-layer", "sequential"),
    "fisher, one-shot refit": ("fisher", {}, "per-layer", "moments"),
    "fisher, no refit": ("fisher", {}, "per-layer", "none"),
    "taylor": ("taylor", {}, "per-layer", "sequential"),
    "taylor, no refit": ("taylor", {}, "per-layer", "none"),
    "magnitude": ("magnitude", {}, "per-layer", "sequential"),
    "magnitude, no refit": ("magnitude", {}, "per-layer", "none"),
    "random": ("random", {}, "per-layer", "sequential"),
    "random, no refit": ("random", {}, "per-layer", "none"),
}
ZERO_SHOT = ("arc_easy_test", "piqa_dev", "winogrande_dev", "openbookqa_test")
ZERO_SHOT_RATIOS = (0.0, 0.2, 0.3)
ZERO_SHOT_VARIANTS = ("dense", "spp", "spp, uniform", "fisher")


def main(arguments: list[str]) -> None:
    """Measure everything that has no row yet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks quality", description=__doc__)
    parser.add_argument("--ratios", default=",".join(map(str, RATIOS)))
    parser.add_argument("--variants", default=";".join(VARIANTS))
    parser.add_argument("--zero-shot", type=int, default=0, metavar="N", help="questions per set")
    options = parser.parse_args(arguments)
    ratios = [float(item) for item in options.ratios.split(",")]
    rows = Rows("quality")
    _dense(rows, options.zero_shot)
    for name in options.variants.split(";"):
        method, settings, layout, refit = VARIANTS[name]
        missing = [r for r in ratios if not rows.has(variant=name, ratio=r)]
        zero_shot = options.zero_shot if name in ZERO_SHOT_VARIANTS else 0
        wanted = [r for r in ZERO_SHOT_RATIOS if r and zero_shot]
        wanted = [r for r in wanted if not rows.has(variant=name, zero_shot_ratio=r)]
        if missing or wanted:
            _variant(rows, name, method, settings, layout, refit, missing, wanted, zero_shot)


def _dense(rows: Rows, zero_shot: int) -> None:
    from prunepath.evaluation.perplexity import perplexity

    if not rows.has(variant="dense", ratio=0.0):
        value = perplexity(opened().model, evaluation_windows()).value
        rows.add({"variant": "dense", "ratio": 0.0, "perplexity": value})
    if zero_shot and not rows.has(variant="dense", zero_shot_ratio=0.0):
        rows.add(
            {"variant": "dense", "zero_shot_ratio": 0.0, **_zero_shot(opened().model, zero_shot)}
        )


def _variant(
    rows: Rows,
    name: str,
    method: str,
    settings: dict[str, Any],
    layout: str,
    refit: str,
    ratios: list[float],
    zero_shot_ratios: list[float],
    questions: int,
) -> None:
    from prunepath.allocation.budget import Budget
    from prunepath.api.workshop import Workshop
    from prunepath.evaluation.perplexity import perplexity

    folder, seconds = path_folder(method, settings)
    shop = Workshop(folder, layout=layout, refit=refit)
    shop.open(opened().model, tokenizer=opened().tokenizer)
    for ratio in sorted({*ratios, *zero_shot_ratios}):
        start = time.perf_counter()
        made = shop.make(Budget.from_ratio(ratio))
        elapsed = time.perf_counter() - start
        if ratio in ratios:
            rows.add(
                {
                    "variant": name,
                    "method": method,
                    "settings": settings,
                    "layout": layout,
                    "refit": refit,
                    "ratio": ratio,
                    "reached_ratio": made.allocation.ratio,
                    "params": made.allocation.cost.params,
                    "perplexity": perplexity(made.model, evaluation_windows()).value,
                    "strength": made.refit.get("strength"),
                    "search_seconds": seconds,
                    "extract_seconds": elapsed,
                }
            )
        if ratio in zero_shot_ratios:
            rows.add(
                {"variant": name, "zero_shot_ratio": ratio, **_zero_shot(made.model, questions)}
            )


def _zero_shot(model: Any, questions: int) -> dict[str, Any]:
    from prunepath.evaluation.choices import choices_accuracy

    found = {}
    for name in ZERO_SHOT:
        file = data_folder() / "mcqa" / f"{name}.jsonl"
        result = choices_accuracy(model, opened().tokenizer, file, limit=questions)
        found[name.partition("_")[0]] = result.accuracy
    return {"questions": questions, **found, "mean": sum(found.values()) / len(found)}


def path_folder(method: str, settings: dict[str, Any]) -> tuple[Path, float | None]:
    """The path of a method; returns its folder and the seconds of its search.

    The default method is searched as a user would. Every other method of the same objective ranks
    from one more pass over the same windows and takes the same supplies for its refit, so rows
    differ by the order alone; such a row states no search time.
    """
    import prunepath

    name = "-".join([method, *(f"{k}={v}" for k, v in sorted(settings.items()))])
    folder = OUT / f"{name}-{WINDOWS}x{WINDOW}"
    clock = folder / "seconds.json"
    own_search = (method, settings) == ("spp", {}) or method == "taylor"
    if not own_search:
        return _ranked(folder, method, settings), None
    if not clock.exists():
        start = time.perf_counter()
        prunepath.search(
            opened().model,
            output=folder,
            data=text("valid"),
            method=method,
            config=settings,
            windows=WINDOWS,
            window=WINDOW,
            tokenizer=opened().tokenizer,
            overwrite=True,
        )
        clock.write_text(json.dumps(time.perf_counter() - start))
    return folder, float(json.loads(clock.read_text()))


def _ranked(folder: Path, method: str, settings: dict[str, Any]) -> Path:
    """A path from shared statistics, with the default path's supplies beside it."""
    import shutil

    from prunepath.methods.method import METHODS, SearchContext, total_order
    from prunepath.path import PATH_FILE, SolutionPath
    from prunepath.statistics.sums import STATISTICS_FILE, Statistics
    from prunepath.structure.gates import frozen

    if (folder / PATH_FILE).exists():
        return folder
    default, _ = path_folder("spp", {})
    base = SolutionPath.from_pretrained(default)
    sums, samples = _shared_statistics()
    moments, _ = Statistics.load(default / STATISTICS_FILE)
    sums.moments, sums.inputs, sums.rows = moments.moments, moments.inputs, moments.rows
    scorer = METHODS[method](METHODS[method].Config.from_dict(settings))
    with frozen(opened().model):
        ranking = scorer.rank(
            SearchContext(
                model=opened().model,
                structure=base.structure,
                statistics=sums,
                task=opened().task,
                samples=samples,
            )
        )
    provenance = replace(
        base.provenance, method=method, method_config=scorer.config.to_dict(), extra={}
    )
    folder.mkdir(parents=True, exist_ok=True)
    for file in default.glob("*.safetensors"):
        if file.name != PATH_FILE:
            shutil.copy(file, folder / file.name)
    SolutionPath(
        structure=base.structure, **total_order(base.structure, ranking), provenance=provenance
    ).save_pretrained(folder)
    return folder


def _shared_statistics() -> tuple[Any, Any]:
    """One pass over the calibration windows with every sum, kept for all methods."""
    from prunepath.data.windows import token_windows
    from prunepath.statistics.collect import Wanted
    from prunepath.statistics.run import collect
    from prunepath.structure.discover import discover

    folder = OUT / "shared"
    folder.mkdir(parents=True, exist_ok=True)
    samples = token_windows(text("valid"), opened().tokenizer, window=WINDOW, count=WINDOWS)
    model = opened().model
    sums = collect(
        model,
        discover(model),
        opened().task,
        samples,
        Wanted(),
        objective="kl",
        seed=0,
        folder=folder,
        output_batches=0,
    )
    return sums, samples
