"""The verb `compare`: many recipes on one model, from one pass of statistics, in one table."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.api.plan import Plan, require_counts
from prunepath.api.recipes import find_recipe, make_method, with_word
from prunepath.errors import RequestError

if TYPE_CHECKING:
    from prunepath.api.calibration import DenseModel
    from prunepath.data.samples import Samples
    from prunepath.progress import Progress
    from prunepath.recipes import Recipe
    from prunepath.report.comparison import ComparisonRow

__all__ = ["compare"]


def compare(
    model: Any,
    *,
    output: str | Path,
    methods: Sequence[str | Path | Recipe] = ("spp", "fisher", "magnitude"),
    ratios: Sequence[float] = (0.1, 0.3, 0.5),
    data: Any = None,
    evaluation_data: Any = None,
    task: str | None = None,
    windows: int | None = None,
    window: int | None = None,
    evaluation_windows: int | None = None,
    moment_windows: int | None = None,
    refit_windows: int | None = None,
    holdout_windows: int | None = None,
    text_field: str = "",
    label_field: str = "",
    split: str | None = None,
    evaluation_split: str | None = None,
    refit: str | None = None,
    layout: str | None = None,
    seeds: Sequence[int] = (0,),
    choices: Sequence[str | Path] = (),
    questions: int | None = None,
    tokenizer: Any = None,
    dtype: str = "auto",
    device: str | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    **hub: Any,
) -> list[ComparisonRow]:
    """Measure recipes against each other: the same samples, the same pass, the same evaluation.

    The dense model and a random order are always among them. Calibration and evaluation data are
    proven to share nothing. Every finished size is a line of a file; running again with the same
    request goes on after the last one, and further methods or ratios only add lines.

    Args:
        model: Hub id, folder, GGUF file, or a model object.
        output: folder for `compare.md`, `compare.png`, the rows and, in `paths`, every path.
        methods: recipes or methods by name, recipe files, or recipes; `taylor+sequential` and
            `spp+uniform` say otherwise about one thing.
        ratios: fractions of the block parameters to remove.
        data: what to calibrate on, see `search`.
        evaluation_data: what to measure on, see `evaluate`; language models have a text in the
            package.
        task: registered task name; by default what the model's class is for.
        windows, moment_windows, refit_windows, holdout_windows: samples of a search, see `search`.
        window: tokens per sample of text, in the search and in the evaluation.
        evaluation_windows: samples to measure on; None: the task's own count.
        text_field, label_field: where text and labels are, in both.
        split, evaluation_split: splits of the two.
        refit: the same repair for all recipes, `"none"` included; by default each recipe's own.
        layout: the same layout for all recipes.
        seeds: every seed searches anew; the table has means and standard deviations.
        choices: files of multiple-choice questions, for causal language models.
        questions: how many of each file; None asks all.
        tokenizer, dtype, device, trust_remote_code, hub: how to load the model.
        progress: who listens.

    Returns:
        The dense row, then one row per recipe, ratio and seed.

    Raises:
        PrunepathError: one sentence on what was asked, what was found and what to do.

    Example:
        >>> import prunepath
        >>> rows = prunepath.compare("model", output="table", ratios=[0.2])  # doctest: +SKIP
    """
    from prunepath.allocation.budget import Budget
    from prunepath.api.calibration import read_calibration, read_model
    from prunepath.api.contest import Contest, read_choices
    from prunepath.api.evaluate import evaluation_samples
    from prunepath.api.shared_search import SharedSearch
    from prunepath.progress import note
    from prunepath.surgery.record import require_unmerged

    entered = _entered(methods, refit, layout)
    if not ratios or not seeds:
        raise RequestError("no ratios or no seeds were given; pass for example --ratios 0.1,0.3")
    budgets = {ratio: Budget.from_ratio(ratio) for ratio in sorted(ratios)}
    require_counts(
        windows=(windows, 1),
        window=(window, 2),
        evaluation_windows=(evaluation_windows, 1),
        refit_windows=(refit_windows, 0),
        holdout_windows=(holdout_windows, 1),
        moment_windows=(moment_windows, 0),
        questions=(questions, 1),
    )
    asked = read_choices(choices, questions)
    dense = read_model(
        model,
        task=task,
        tokenizer=tokenizer,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
        progress=progress,
        **hub,
    )
    require_unmerged(dense.opened.model)
    own = dense.opened.task
    if asked and own.name != "causal-lm":
        raise RequestError(
            f"multiple-choice questions need a causal language model, and the task is {own.name}; "
            "leave out --choices"
        )
    evaluation = evaluation_samples(
        dense.opened,
        evaluation_data,
        windows=evaluation_windows,
        window=window,
        text_field=text_field,
        label_field=label_field,
        split=evaluation_split,
    )
    for remark in evaluation.notes:
        note(progress, remark)
    plan = Plan.of(
        own,
        windows=windows,
        refit=refit_windows,
        holdout=holdout_windows,
        moments=moment_windows,
    )
    contest = Contest(
        dense,
        evaluation,
        asked,
        Path(output),
        window=window,
        questions=questions,
        progress=progress,
    )
    admit = _admitting(dense, evaluation, contest.question_samples(), plan, progress)
    objectives = dict.fromkeys(make_method(recipe).objective() for recipe in entered)
    rows: list[ComparisonRow] = []
    for seed in dict.fromkeys(seeds):
        for objective in objectives:
            calibration = read_calibration(
                dense,
                data,
                plan=plan,
                objective=objective,
                seed=seed,
                window=window,
                text_field=text_field,
                label_field=label_field,
                split=split,
                admit=admit,
                progress=progress,
            )
            if not rows:  # nothing is measured before the data is known to be right
                contest.refuse_impossible(entered, max(budgets.values(), key=_removed), calibration)
                rows.append(contest.dense_row(seed))
            found = SharedSearch(calibration, contest.work, progress)
            fitting = [each for each in entered if make_method(each).objective() == objective]
            rows += contest.measure(found, fitting, budgets)
    order = {recipe.name: place for place, recipe in enumerate(entered)}
    rows[1:] = sorted(rows[1:], key=lambda row: (order[row.recipe], row.asked_ratio, row.seed))
    contest.write(rows)
    shutil.rmtree(contest.work, ignore_errors=True)
    return rows


def _removed(budget: Any) -> float:
    return float(budget.ratio)


def _entered(
    methods: Sequence[str | Path | Recipe], refit: str | None, layout: str | None
) -> list[Recipe]:
    """The recipes that are compared, by what the user says for all; a random one is among them."""
    found = [find_recipe(each) for each in methods]
    if not any(recipe.method == "random" for recipe in found):
        found.append(find_recipe("random"))
    for word in (refit, layout):
        if word is not None:
            found = [with_word(recipe, word) for recipe in found]
    entered: dict[str, Recipe] = {}
    for recipe in found:
        same = entered.setdefault(recipe.name, recipe)
        if replace(same, summary="", paper="") != replace(recipe, summary="", paper=""):
            raise RequestError(
                f"two recipes are called '{recipe.name}' and differ; give one another name"
            )
    return list(entered.values())


def _admitting(
    dense: DenseModel,
    evaluation: Samples,
    questions: Samples | None,
    plan: Plan,
    progress: Progress | None,
) -> Any:
    """Says which calibration samples are nowhere in the evaluation data."""
    from prunepath.data.overlap import require_disjoint
    from prunepath.errors import DataError
    from prunepath.progress import note

    def admit(samples: Samples) -> Samples:
        left = samples
        for others in (evaluation, questions):
            if others is not None:
                left = require_disjoint(left, others, dense.opened.tokenizer)
        missing = len(samples) - len(left)
        if missing:
            note(progress, f"{missing} short texts are in the evaluation data, too: left out")
        if len(left) < plan.windows + plan.holdout:
            raise DataError(
                f"{plan.windows + plan.holdout} calibration samples are needed, and without those "
                f"that are in the evaluation data there are {len(left)}; give more --data, or ask "
                "for fewer --windows"
            )
        return left

    return admit
