"""Flags about tasks and their data; a window is one sample, whatever the task."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = [
    "Data",
    "EvaluationData",
    "EvaluationSplit",
    "EvaluationWindows",
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
        help="What the model is for: causal-lm, masked-lm, seq2seq-lm, text-classification, "
        "sentence-embedding, image-classification, image-text, segmentation or speech.",
        show_default="what the model's class is for",
    ),
]
Objective = Annotated[
    str | None,
    typer.Option(
        "--objective",
        help="kl (match the dense model, no labels) or task (the data's labels or next tokens).",
        show_default="the method's own",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="What the task reads: text, a table (tsv, csv, jsonl), a folder or zip of images, a "
        "folder of recordings, or a datasets id (name:config:split).",
        show_default="for language models, a public-domain text in the package",
        rich_help_panel=_DATA,
    ),
]
Windows = Annotated[
    int | None,
    typer.Option(
        "--windows",
        help="Samples (windows of text, sentences, images, pairs, recordings).",
        show_default=_USUAL,
        rich_help_panel=_DATA,
    ),
]
Window = Annotated[
    int | None,
    typer.Option(
        "--window",
        help="Tokens per sample of text.",
        show_default="the task's own; 512 for causal-lm",
        rich_help_panel=_DATA,
    ),
]
TextField = Annotated[
    str,
    typer.Option(
        "--text-field",
        help="Field of a row that holds the text, the image or the path of a recording; two texts "
        "with a comma.",
        show_default=_NAMES,
        rich_help_panel=_DATA,
    ),
]
LabelField = Annotated[
    str,
    typer.Option(
        "--label-field",
        help="Field of a row that holds the label, the mask or the transcript.",
        show_default=_NAMES,
        rich_help_panel=_DATA,
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="Split of a dataset, or folder of that name among images.",
        rich_help_panel=_DATA,
    ),
]
EvaluationData = Annotated[
    str | None,
    typer.Option(
        "--evaluation-data",
        help="What to measure on, with labels; it may share nothing with --data.",
        show_default="for language models, another text in the package",
        rich_help_panel=_DATA,
    ),
]
EvaluationWindows = Annotated[
    int | None,
    typer.Option(
        "--evaluation-windows",
        help="Samples to measure on.",
        show_default=_USUAL,
        rich_help_panel=_DATA,
    ),
]
EvaluationSplit = Annotated[
    str | None,
    typer.Option(
        "--evaluation-split", help="Split of the data to measure on.", rich_help_panel=_DATA
    ),
]
MomentWindows = Annotated[
    int | None,
    typer.Option(
        "--moment-windows",
        help="More samples, forward only, for the second moments order and refit rest on.",
        show_default=_USUAL,
        rich_help_panel=_REFIT,
    ),
]
RefitWindows = Annotated[
    int | None,
    typer.Option(
        "--refit-windows",
        help="Calibration samples kept for the sequential refit, in whole batches.",
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
