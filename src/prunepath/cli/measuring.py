"""The commands that look and measure: `inspect`, `evaluate` and `methods`."""

from __future__ import annotations

from typing import Annotated

import typer

from prunepath.cli import data_options as d
from prunepath.cli import options as o
from prunepath.cli.parse import hub_options
from prunepath.cli.session import listener, session

__all__ = ["evaluate", "inspect", "methods"]


def inspect(
    source: o.Source,
    task: d.Task = None,
    sequence_length: o.SequenceLength = None,
    revision: o.Revision = None,
    token: o.Token = None,
    cache_dir: o.CacheDir = None,
    trust_remote_code: o.TrustRemoteCode = False,
    json: o.Json = False,
    verbose: o.Verbose = False,
) -> None:
    """Show what can be cut, what one unit costs, and what is left alone and why."""
    with session(verbose=verbose):
        from prunepath.api.inspect import inspect as verb
        from prunepath.cli import show_measured as show

        found = verb(
            source,
            task=task,
            sequence_length=sequence_length,
            trust_remote_code=trust_remote_code,
            **hub_options(revision=revision, token=token, cache_dir=cache_dir),
        )
        if json:
            show.print_json(show.inspection_json(found))
        else:
            show.inspection_text(found)


def evaluate(
    model: o.Model,
    data: d.Data = None,
    task: d.Task = None,
    windows: d.Windows = None,
    window: d.Window = None,
    text_field: d.TextField = "",
    label_field: d.LabelField = "",
    split: d.Split = None,
    speed: o.SpeedFlag = True,
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
    """Measure the task's metric (perplexity, accuracy, ...) and how fast the model runs."""
    with session(verbose=verbose):
        from prunepath.api.evaluate import evaluate as verb
        from prunepath.cli import show_measured as show

        found = verb(
            model,
            data=data,
            task=task,
            windows=windows,
            window=window,
            text_field=text_field,
            label_field=label_field,
            split=split,
            speed=speed,
            tokenizer=tokenizer,
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
            progress=listener(quiet),
            **hub_options(revision=revision, token=token, cache_dir=cache_dir),
        )
        if json:
            show.print_json(show.evaluation_json(found))
        else:
            show.evaluation_text(found)


def methods(
    name: Annotated[
        str | None,
        typer.Argument(help="Show the settings and the recipe of this one.", show_default=False),
    ] = None,
) -> None:
    """List recipes and methods with what they cost and need, or show one of them."""
    with session():
        from prunepath.api.recipes import find_recipe, listed_recipes
        from prunepath.cli import show_recipes as show

        if name is None:
            show.recipes_text(listed_recipes())
        else:
            show.recipe_text(find_recipe(name))
