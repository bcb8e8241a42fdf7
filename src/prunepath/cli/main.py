"""The commands: `search`, `rescore`, `extract`, `curve` and those of other files in this folder.

Every command calls the verb of the same name in `prunepath.api` with the same words. What is heavy
is imported there, so that `prunepath --help` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from prunepath.cli import comparing, measuring
from prunepath.cli import data_options as d
from prunepath.cli import options as o
from prunepath.cli.parse import hub_options, numbers, schedule, settings, words
from prunepath.cli.session import EXIT_INTERRUPTED, listener, session

__all__ = ["app", "run"]

app = typer.Typer(
    name="prunepath",
    help="Structured pruning of transformers: search once, ship every size.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def run() -> None:
    """Entry point of the `prunepath` command."""
    try:
        app()
    except KeyboardInterrupt:  # before or after a command's own session
        sys.exit(EXIT_INTERRUPTED)


def _show_version(wanted: bool) -> None:
    if wanted:
        from prunepath import __version__

        typer.echo(f"prunepath {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Structured pruning of transformers: search once, ship every size."""


@app.command()
def search(
    model: o.Model,
    output: o.Output,
    task: d.Task = None,
    method: o.MethodName = None,
    recipe: o.RecipeFile = None,
    set_: o.Set = None,
    objective: d.Objective = None,
    seed: o.Seed = 0,
    data: d.Data = None,
    windows: d.Windows = None,
    window: d.Window = None,
    text_field: d.TextField = "",
    label_field: d.LabelField = "",
    split: d.Split = None,
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
    overwrite: o.Overwrite = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Find the order in which a model's units matter; every size is later cut from it."""
    resumes = "run the same command again and it goes on where it stopped"
    with session(verbose=verbose, interrupted=resumes):
        from prunepath.api.search import search as verb
        from prunepath.cli import show

        path = verb(
            model,
            output=output,
            data=data,
            task=task,
            method=method,
            recipe=recipe,
            windows=windows,
            window=window,
            objective=objective,
            seed=seed,
            config=settings(set_),
            moment_windows=moment_windows,
            refit_windows=refit_windows,
            holdout_windows=holdout_windows,
            text_field=text_field,
            label_field=label_field,
            split=split,
            tokenizer=tokenizer,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            overwrite=overwrite,
            progress=listener(quiet),
            **hub_options(revision=revision, token=token, cache_dir=cache_dir),
        )
        if json:
            show.print_json(show.search_json(path, output))
        else:
            show.search_text(path, output)


@app.command()
def rescore(
    path: o.Path_,
    output: o.Output,
    set_: o.Set = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
    verbose: o.Verbose = False,
) -> None:
    """Weigh the scores of a finished search anew; the model is not needed."""
    with session(verbose=verbose):
        from prunepath.api.rescore import rescore as verb
        from prunepath.cli import show

        made = verb(path, output=output, config=settings(set_), overwrite=overwrite)
        if json:
            show.print_json(show.search_json(made, output))
        else:
            show.search_text(made, output)


@app.command()
def extract(
    path: o.Path_,
    output: o.Output,
    params: o.Params = None,
    macs: o.Macs = None,
    memory: o.Memory = None,
    latency: o.Latency = None,
    ratio: o.Ratio = None,
    layout: o.Layout = None,
    kinds: o.Kinds = None,
    multiple: o.Multiple = None,
    floor: o.Floor = None,
    sequence_length: o.SequenceLength = None,
    rule: o.Rule = None,
    rule_set: o.RuleSet = None,
    rearrange: o.Rearrange = None,
    refit: o.Refit = None,
    bias: o.Bias = None,
    token_share: o.TokenShare = 0.0,
    token_decay: o.TokenDecay = 1.0,
    token_schedule: o.TokenSchedule = None,
    model: o.DenseModel = None,
    tokenizer: o.TokenizerSource = None,
    dtype: o.Dtype = "auto",
    device: o.Device = None,
    revision: o.Revision = None,
    token: o.Token = None,
    cache_dir: o.CacheDir = None,
    trust_remote_code: o.TrustRemoteCode = False,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Cut the largest model at or under a budget, repair it, write it and check that it loads."""
    with session(verbose=verbose):
        from prunepath.api.extract import as_budget
        from prunepath.api.extract import extract as verb
        from prunepath.cli import show

        budget = as_budget(params=params, macs=macs, memory=memory, latency=latency, ratio=ratio)
        made = verb(
            path,
            output=output,
            budget=budget,
            layout=layout,
            kinds=words(kinds),
            multiple=multiple,
            floor=floor,
            sequence_length=sequence_length,
            refit=refit,
            bias=bias,
            rule=rule,
            rule_set=settings(rule_set, "--rule-set", "generations=20"),
            rearrange=rearrange,
            token_share=token_share,
            token_decay=token_decay,
            token_schedule=schedule(token_schedule, "--token-schedule"),
            model=model,
            tokenizer=tokenizer,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            overwrite=overwrite,
            progress=listener(quiet),
            **hub_options(revision=revision, token=token, cache_dir=cache_dir),
        )
        if json:
            show.print_json(show.extraction_json(made))
        else:
            show.extraction_text(made)


app.command()(measuring.inspect)
app.command()(measuring.evaluate)


@app.command()
def curve(
    path: o.Path_,
    output: o.Output,
    points: o.Points = ["0.1,0.2,0.3,0.4,0.5"],  # noqa: B006 - typer copies it
    layouts: o.Layouts = None,
    rule: o.Rule = None,
    rule_set: o.RuleSet = None,
    refit: o.Refit = None,
    data: d.Data = None,
    windows: d.Windows = None,
    window: d.Window = None,
    text_field: d.TextField = "",
    label_field: d.LabelField = "",
    split: d.Split = None,
    speed: o.SpeedFlag = False,
    model: o.DenseModel = None,
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
    """Cut a path at several ratios, evaluate every size, and draw quality against size."""
    resumes = "run the same command again and it goes on after the last finished point"
    with session(verbose=verbose, interrupted=resumes):
        from prunepath.api.curve import curve as verb
        from prunepath.cli import show

        rows = verb(
            path,
            output=output,
            points=numbers(points, "--points"),
            layouts=words(layouts) or None,
            data=data,
            windows=windows,
            window=window,
            text_field=text_field,
            label_field=label_field,
            split=split,
            refit=refit,
            rule=rule,
            rule_set=settings(rule_set, "--rule-set", "generations=20"),
            speed=speed,
            model=model,
            tokenizer=tokenizer,
            trust_remote_code=trust_remote_code,
            progress=listener(quiet),
            dtype=dtype,
            device=device,
            **hub_options(revision=revision, token=token, cache_dir=cache_dir),
        )
        if json:
            show.print_json([vars(row) for row in rows])
        else:
            show.curve_text(rows, output)


app.command()(comparing.compare)
app.command()(measuring.methods)
