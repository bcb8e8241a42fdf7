"""The field on one bench: recipes side by side on a language model, an encoder and a vision model.

    python -m benchmarks field [--models smollm2,minilm,vit] [--recipes spp,flap] [--questions 50]

Every model is one `prunepath.compare`: all recipes share its samples, its pass of statistics and
its evaluation. As a user who searches with one recipe alone pays for what that recipe wants and for
nothing else, the passes of single recipes are timed apart (`--seconds`, on a quiet machine).
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from benchmarks.models import MODELS
from benchmarks.protocol import (
    EVALUATION_WINDOWS,
    OUT,
    RATIOS,
    WINDOW,
    WINDOWS,
    Rows,
    data_folder,
    model_file,
    text,
)

__all__ = ["FIELD", "RECIPES", "SEEDED", "FieldModel", "main"]

RECIPES = (
    "spp",
    "fisher",
    "fisher+sequential",
    "spp+uniform",
    "obs",
    "flap",
    "wanda-sp",
    "taylor",
    "taylor+sequential",
    "magnitude",
    "magnitude+sequential",
    "random",
    "random+sequential",
    "obs-bias",
    "obs+none",
    "gblm",
    "pq",
    "spp+moments",
    "spp+none",
    "fisher+moments",
    "spp-fisher",
    "spp-flow",
)
OWN: dict[str, dict[str, Any]] = {  # settings that are no recipe of the library
    "spp-fisher": {"method": "spp", "config": {"curvature": "fisher"}},
    "spp-flow": {"method": "spp", "config": {"curvature": "fisher", "solver": "flow"}},
    "spp-coupled": {
        "method": "spp",
        "config": {"dynamics": "coupled", "max_steps": 200, "batches_per_step": 1},
    },
    "spp-authors": {
        "method": "spp",
        "config": {"dynamics": "authors", "max_steps": 200, "batches_per_step": 1},
    },
    # The published sizes of these take hours here: fewer steps, fewer samples a step.
    "adapt-pruner-20": {
        "method": "adapt",
        "config": {"steps": 20, "amplitude": 0.05, "step_windows": 128, "until": 0.6},
        "refit": "none",
    },
    "adapt-pruner-10": {
        "method": "adapt",
        "config": {"steps": 10, "amplitude": 0.1, "step_windows": 4, "until": 0.6},
        "refit": "none",
    },
    "finercut-small": {
        "method": "finercut",
        "config": {"samples": 2, "tokens": 128, "steps": 24},
        "refit": "none",
    },
}
PART = 4  # passes of single recipes see so small a part of the samples; a pass is linear in them
SEEDED = ("random", "fisher")  # what draws at random: an order, and labels or probes
QUESTIONS = ("arc_easy_test", "piqa_dev", "winogrande_dev", "openbookqa_test")
QUESTION_RATIOS = (0.2, 0.3)
QUESTIONED = ("spp", "spp+uniform", "fisher+sequential", "obs", "flap", "magnitude")


@dataclass(frozen=True, kw_only=True)
class FieldModel:
    """A model of the bench.

    Args:
        title: what the page calls it.
        source: gives what `compare` takes as its model.
        request: gives the other words of that `compare`.
        ratios: fractions of the block parameters to remove.
        seeds: seeds of the recipes that draw at random.
        more: recipes of this model alone.
    """

    title: str
    source: Callable[[], Any]
    request: Callable[[], dict[str, Any]]
    ratios: tuple[float, ...]
    seeds: tuple[int, ...] = (0,)
    more: tuple[str, ...] = ()


def main(arguments: list[str]) -> None:
    """Measure everything that has no row yet, model by model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks field", description=__doc__)
    parser.add_argument("--models", default=",".join(FIELD))
    parser.add_argument("--recipes", help="instead of all; rows of others stay")
    parser.add_argument("--questions", type=int, default=50, help="of every set; 0: none")
    parser.add_argument("--seeds", help="instead of the model's own, for recipes that draw")
    parser.add_argument("--seconds", action="store_true", help="time single passes, nothing else")
    options = parser.parse_args(arguments)
    for name in options.models.split(","):
        if name not in FIELD:
            raise SystemExit(f"unknown model '{name}'; use one of {', '.join(FIELD)}")
        model = FIELD[name]
        recipes = options.recipes.split(",") if options.recipes else [*RECIPES, *model.more]
        if options.seconds:
            _time_passes(model, recipes)
            continue
        _keep(model, name, recipes, model.ratios)
        seeds = [int(each) for each in options.seeds.split(",")] if options.seeds else model.seeds
        if len(seeds) > 1:
            seeded = [each for each in recipes if each in SEEDED]
            _keep(model, name, seeded, model.ratios, seeds=seeds)
        if name == "smollm2" and options.questions:
            files = [data_folder() / "mcqa" / f"{each}.jsonl" for each in QUESTIONS]
            asked = {"choices": files, "questions": options.questions}
            few = [each for each in recipes if each in QUESTIONED]
            _keep(model, name, few, QUESTION_RATIOS, **asked)


def _recipe(name: str) -> Any:
    """A recipe by name: the library's, or one of `OWN`."""
    from prunepath.recipes import Recipe

    return Recipe(name=name, **OWN[name]) if name in OWN else name


def _keep(
    model: FieldModel, folder: str, recipes: list[str], ratios: tuple[float, ...], **more: Any
) -> None:
    """Compare, and put the rows into the results in place of earlier ones of the same thing."""
    import prunepath

    found = prunepath.compare(
        model.source(),
        output=OUT / "field" / folder,
        methods=[_recipe(each) for each in recipes],
        ratios=ratios,
        **model.request(),
        **more,
    )
    rows = Rows("field")
    asked = more.get("questions")
    for row in found:
        rows.put(
            {"model": model.title, "questions": asked, **asdict(row)},
            key=("model", "questions", "recipe", "asked_ratio", "seed"),
        )


def _time_passes(model: FieldModel, recipes: list[str]) -> None:
    """Wall seconds of the pass that each recipe alone would need: a part of it, times that."""
    from prunepath.api.calibration import read_calibration, read_model
    from prunepath.api.plan import Plan
    from prunepath.api.recipes import cost_class, find_recipe, make_method
    from prunepath.api.shared_search import SharedSearch

    request = model.request()
    dense = read_model(model.source(), task=request.get("task"), dtype="float32")
    usual = dense.opened.task.counts
    windows = request.get("windows") or usual.windows
    plan = Plan.of(
        dense.opened.task,
        windows=windows // PART,
        refit=usual.refit // PART,
        holdout=usual.holdout,
        moments=usual.moments // PART,
    )
    rows, work = Rows("field_seconds"), OUT / "field" / "seconds"
    known: dict[str, float] = {}
    for name in recipes:
        recipe = find_recipe(_recipe(name))
        if rows.has(model=model.title, recipe=name):
            continue
        seconds = 0.0
        if cost_class(recipe) != "data-free":
            method = make_method(recipe)
            wish = json.dumps([method.objective(), asdict(method.wanted())], sort_keys=True)
            if wish not in known:
                shutil.rmtree(work, ignore_errors=True)
                calibration = read_calibration(
                    dense,
                    request["data"],
                    plan=plan,
                    objective=method.objective(),
                    seed=0,
                    window=request.get("window"),
                )
                search = SharedSearch(calibration, work, None)
                search.expect(recipe, work / "path")
                start = time.perf_counter()
                search.collected()
                known[wish] = time.perf_counter() - start
            seconds = known[wish]
        rows.put(
            {"model": model.title, "recipe": name, "pass_seconds": round(PART * seconds, 2)},
            key=("model", "recipe"),
        )
    shutil.rmtree(work, ignore_errors=True)


def _language() -> dict[str, Any]:
    return {
        "data": text("valid"),
        "evaluation_data": text("test"),
        "windows": WINDOWS,
        "window": WINDOW,
        "evaluation_windows": EVALUATION_WINDOWS,
        "dtype": "float32",
    }


def _other(name: str) -> dict[str, Any]:
    real = MODELS[name]
    return {
        "data": real.data(real.calibration),
        "evaluation_data": real.data(real.evaluation),
        "task": real.task,
        "dtype": "float32",
    }


FIELD = {
    "smollm2": FieldModel(
        title="SmolLM2-135M-Instruct",
        source=model_file,
        request=_language,
        ratios=RATIOS,
        more=(
            "shortgpt",
            "sublayer-cosine",
            "angular-blocks",
            "finercut-small",
            "adapt-pruner-10",
            "global-magnitude",
            "rd",
        ),
    ),
    **{
        name: FieldModel(
            title=MODELS[name].title,
            source=MODELS[name].folder,
            request=partial(_other, name),
            ratios=(0.2, 0.4, 0.5),
            seeds=(0, 1, 2),
            more=(
                "optin",
                "kwon",
                "shortgpt",
                "sublayer-cosine",
                "finercut",
                "global-magnitude",
                "rd",
                "ecoflap",
                "tyr",
                "icbs",
                "adapt-pruner-20",
                "spp-coupled",
                "spp-authors",
            ),
        )
        for name in ("minilm", "vit")
    },
}
