"""The command `compare`: recipes against each other on one model."""

from __future__ import annotations

from typing import Annotated

import typer

from prunepath.cli import data_options as d
from prunepath.cli import options as o
from prunepath.cli.parse import hub_options, integers, numbers, words
from prunepath.cli.session import listener, session

__all__ = ["compare"]

_ALL = "every recipe its own"

Methods = Annotated[
    list[str],
    typer.Option(
        "--methods",
        help="Recipes, methods or recipe files; repeat or separate by commas. taylor+sequential "
        "and spp+uniform say otherwise about one thing. random is always among them.",
    ),
]
Ratios = Annotated[
    list[str],
    typer.Option(
        "--ratios",
        help="Fractions of the block parameters to remove; repeat or separate by commas.",
    ),
]
Seeds = Annotated[
    list[str], typer.Option("--seeds", help="Every seed searches anew: means and deviations.")
]
Choices = Annotated[
    list[str] | None,
    typer.Option(
        "--choices",
        help="Files of multiple-choice questions (.jsonl) that all answer; causal-lm only.",
        show_default="none",
    ),
]
Questions = Annotated[
    int | None,
    typer.Option("--questions", help="How many of each file.", show_default="all"),
]
RefitOfAll = Annotated[
    str | None,
    typer.Option(
        "--refit",
        help="The same repair for all: sequential, moments, scales or none.",
        show_default=_ALL,
    ),
]
LayoutOfAll = Annotated[
    str | None,
    typer.Option(
        "--layout", help="The same layout for all: per-layer or uniform.", show_default=_ALL
    ),
]


def compare(
    model: o.Model,
    output: o.Output,
    methods: Methods = ["spp,fisher,magnitude"],  # noqa: B006 - typer copies it
    ratios: Ratios = ["0.1,0.3,0.5"],  # noqa: B006 - typer copies it
    seeds: Seeds = ["0"],  # noqa: B006 - typer copies it
    refit: RefitOfAll = None,
    layout: LayoutOfAll = None,
    task: d.Task = None,
    data: d.Data = None,
    evaluation_data: d.EvaluationData = None,
    windows: d.Windows = None,
    window: d.Window = None,
    evaluation_windows: d.EvaluationWindows = None,
    text_field: d.TextField = "",
    label_field: d.LabelField = "",
    split: d.Split = None,
    evaluation_split: d.EvaluationSplit = None,
    choices: Choices = None,
    questions: Questions = None,
    moment_windows: d.MomentWindows = None,
    refit_windows: d.RefitWindows = None,
    holdout_windows: d.HoldoutWindows = None,
    tokenizer: o.TokenizerSource = None,
    dtype: o.Dtype = "auto",
    device: o.Device = None,
    revision: o.Revision = None,
    token: o.Token = None,
    cache_dir: o.CacheDir = None,
    trust_remote_code: o.TrustRemoteCode = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Measure methods against each other from one shared pass of statistics: table and picture."""
    resumes = "run the same command again and it goes on after the last finished row"
    with session(verbose=verbose, interrupted=resumes):
        from prunepath.api.compare import compare as verb
        from prunepath.cli import show

        rows = verb(
            model,
            output=output,
            methods=words(methods),
            ratios=numbers(ratios, "--ratios"),
            data=data,
            evaluation_data=evaluation_data,
            task=task,
            windows=windows,
            window=window,
            evaluation_windows=evaluation_windows,
            moment_windows=moment_windows,
            refit_windows=refit_windows,
            holdout_windows=holdout_windows,
            text_field=text_field,
            label_field=label_field,
            split=split,
            evaluation_split=evaluation_split,
            refit=refit,
            layout=layout,
            seeds=integers(seeds, "--seeds", "0,1,2"),
            choices=words(choices),
            questions=questions,
            tokenizer=tokenizer,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            progress=listener(quiet),
            **hub_options(revision=revision, token=token, cache_dir=cache_dir),
        )
        if json:
            show.print_json([vars(row) for row in rows])
        else:
            show.comparison_text(rows, output)
