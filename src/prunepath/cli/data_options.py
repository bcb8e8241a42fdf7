"""Flags about tasks and their data; a window is one sample, whatever the task."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = [
    "Data",
    "HoldoutWindows",
    "LabelField",
    "MomentWindows",
    "Objective",
    "RefitWindows",
    "Split",
    "Task",
    "TextField",
    "Window",
    "Windows",
]

_DATA = "Data"
_REFIT = "Refit"
_USUAL = "the task's own count"
_NAMES = "the task's usual names"

Task = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="causal-lm, image-classification, text-classification, ...",
        show_default="what the model's class is for",
    ),
]
Objective = Annotated[
    str | None,
    typer.Option(
        "--objective",
        help="kl (match the dense model, no labels) or task (labels or next tokens).",
        show_default="the method's own",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="What the task reads: text or jsonl file, folder or zip of images, table, or a "
        "datasets id (name:config:split).",
        show_default="for text, a public-domain one in the package",
        rich_help_panel=_DATA,
    ),
]
Windows = Annotated[
    int | None,
    typer.Option(
        "--windows",
        help="Samples (windows of text, images, sentences).",
        show_default=_USUAL,
        rich_help_panel=_DATA,
    ),
]
Window = Annotated[
    int | None,
    typer.Option(
        "--window",
        help="Tokens per sample of text.",
        show_default="512 for language models",
        rich_help_panel=_DATA,
    ),
]
TextField = Annotated[
    str,
    typer.Option(
        "--text-field",
        help="Field of a row that holds the text.",
        show_default=_NAMES,
        rich_help_panel=_DATA,
    ),
]
LabelField = Annotated[
    str,
    typer.Option(
        "--label-field",
        help="Field of a row that holds the label.",
        show_default=_NAMES,
        rich_help_panel=_DATA,
    ),
]
Split = Annotated[
    str | None,
    typer.Option("--split", help="Split of a dataset.", rich_help_panel=_DATA),
]
MomentWindows = Annotated[
    int | None,
    typer.Option(
        "--moment-windows",
        help="More samples, forward only, for the second moments the refit rests on.",
        show_default=_USUAL,
        rich_help_panel=_REFIT,
    ),
]
RefitWindows = Annotated[
    int | None,
    typer.Option(
        "--refit-windows",
        help="Calibration samples kept for the sequential refit.",
        show_default=_USUAL,
        rich_help_panel=_REFIT,
    ),
]
HoldoutWindows = Annotated[
    int | None,
    typer.Option(
        "--holdout-windows",
        help="Samples on which the refit's strength is chosen; nothing else sees them.",
        show_default=_USUAL,
        rich_help_panel=_REFIT,
    ),
]
