"""Flags of the command line, each defined once; they are the words of the Python arguments.

Those about data are in `data_options.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Bias",
    "CacheDir",
    "DenseModel",
    "Device",
    "Dtype",
    "Floor",
    "Json",
    "Kinds",
    "Latency",
    "Layout",
    "Layouts",
    "Macs",
    "Memory",
    "MethodName",
    "Model",
    "Multiple",
    "Output",
    "Overwrite",
    "Params",
    "Path_",
    "Points",
    "Quiet",
    "Ratio",
    "Rearrange",
    "RecipeFile",
    "Refit",
    "Revision",
    "Rule",
    "RuleSet",
    "Seed",
    "SequenceLength",
    "Set",
    "Source",
    "SpeedFlag",
    "Token",
    "TokenDecay",
    "TokenSchedule",
    "TokenShare",
    "TokenizerSource",
    "TrustRemoteCode",
    "Verbose",
]

_BUDGET = "Budget (exactly one; a percentage is what is kept)"
_CUT = "What is cut"
_TOKENS = "Token merging (encoders of image patches)"
_REFIT = "Refit"
_LOAD = "Loading"
_SHOWN = "Output"
_RECIPE = "the recipe's, else {}"

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="Hub id, folder or .gguf file.", show_default=False)
]
Path_ = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="Folder that `prunepath search` wrote, or a Hub id.",
        show_default=False,
    ),
]
Source = Annotated[
    str,
    typer.Argument(
        metavar="MODEL|PATH",
        help="A model, a solution path, or a folder that `prunepath extract` wrote.",
        show_default=False,
    ),
]

Params = Annotated[
    str | None,
    typer.Option("--params", help="Parameters: 70% or 95M.", rich_help_panel=_BUDGET),
]
Macs = Annotated[
    str | None,
    typer.Option(
        "--macs", help="Multiply-accumulates of a sample: 60% or 12G.", rich_help_panel=_BUDGET
    ),
]
Memory = Annotated[
    str | None,
    typer.Option("--memory", help="Weights and KV cache: 70% or 200MB.", rich_help_panel=_BUDGET),
]
Latency = Annotated[
    str | None,
    typer.Option(
        "--latency", help="One sample on this machine: 80% or 12ms.", rich_help_panel=_BUDGET
    ),
]
Ratio = Annotated[
    float | None,
    typer.Option(
        "--ratio",
        help="Fraction of the block parameters to remove, as papers state it: 0.3.",
        rich_help_panel=_BUDGET,
    ),
]

Layout = Annotated[
    str | None,
    typer.Option(
        "--layout",
        help="per-layer (best quality) or uniform (every layer the same size; loads in stock "
        "transformers where the model's config can say it).",
        show_default=_RECIPE.format("per-layer"),
        rich_help_panel=_CUT,
    ),
]
Layouts = Annotated[
    list[str] | None,
    typer.Option(
        "--layouts",
        help="Layouts to cut every point with; repeat or separate by commas.",
        show_default=_RECIPE.format("per-layer"),
        rich_help_panel=_CUT,
    ),
]
Points = Annotated[
    list[str],
    typer.Option(
        "--points",
        help="Ratios to cut at; repeat or separate by commas.",
        rich_help_panel=_CUT,
    ),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kinds",
        help="Unit kinds that may be cut; repeat or separate by commas.",
        show_default=_RECIPE.format("what the layout cuts best"),
        rich_help_panel=_CUT,
    ),
]
Multiple = Annotated[
    int | None,
    typer.Option(
        "--multiple",
        help="Widths end as multiples of this; 1: any.",
        show_default=_RECIPE.format("8"),
        rich_help_panel=_CUT,
    ),
]
Floor = Annotated[
    str | None,
    typer.Option(
        "--floor",
        help="Smallest width that any group keeps: 8, or 10% of its own.",
        show_default=_RECIPE.format("8"),
        rich_help_panel=_CUT,
    ),
]
SequenceLength = Annotated[
    int | None,
    typer.Option(
        "--sequence-length",
        help="Tokens of text that MACs, memory and latency are stated for.",
        show_default="512; images have their own size",
        rich_help_panel=_CUT,
    ),
]
Rule = Annotated[
    str | None,
    typer.Option(
        "--rule",
        help="order (damage per cost; smaller budgets keep subsets), knapsack (least sum of "
        "damages, of two kinds), or measured on the samples beside the path: curves (sub-layers "
        "cut alone), evolution (mutation and tournament), shares (noise in weights).",
        show_default=_RECIPE.format("order"),
        rich_help_panel=_CUT,
    ),
]
RuleSet = Annotated[
    list[str] | None,
    typer.Option(
        "--rule-set",
        metavar="KEY=VALUE",
        help="A setting of the rule; repeat. docs/budgets.md lists them.",
        show_default=_RECIPE.format("the rule's own"),
        rich_help_panel=_CUT,
    ),
]
Rearrange = Annotated[
    str | None,
    typer.Option(
        "--rearrange",
        help="Exchange units of each group: kwon (by what they do together), swaps (under a model "
        "of all layers, measured where the cut is) or none.",
        show_default=_RECIPE.format("none"),
        rich_help_panel=_CUT,
    ),
]

TokenShare = Annotated[
    float,
    typer.Option(
        "--token-share",
        help="Part of the saving that merging patches at run time takes, 0 to 1.",
        rich_help_panel=_TOKENS,
    ),
]
TokenDecay = Annotated[
    float,
    typer.Option(
        "--token-decay",
        help="Patches merged in a block relative to the one before; 1: evenly.",
        rich_help_panel=_TOKENS,
    ),
]
TokenSchedule = Annotated[
    list[str] | None,
    typer.Option(
        "--token-schedule",
        help="Patches to merge in every block, separated by commas, instead of a share; or the "
        "word scored beside a share: where they do least damage, measured.",
        rich_help_panel=_TOKENS,
    ),
]

Refit = Annotated[
    str | None,
    typer.Option(
        "--refit",
        help="sequential (best), moments (one-shot), scales (one number per unit), bias (biases "
        "alone) or none.",
        show_default=_RECIPE.format("sequential"),
        rich_help_panel=_REFIT,
    ),
]
Bias = Annotated[
    bool | None,
    typer.Option(
        "--bias/--no-bias",
        help="Let --refit moments move biases, too.",
        show_default=_RECIPE.format("no"),
        rich_help_panel=_REFIT,
    ),
]
MethodName = Annotated[
    str | None,
    typer.Option(
        "--method",
        help="Recipe or method; `prunepath methods` lists them.",
        show_default="spp",
    ),
]
RecipeFile = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        metavar="FILE",
        help="A recipe of your own, YAML as `prunepath methods NAME` shows it.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="Same seed, same path.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting of the method; repeat. `prunepath methods NAME` lists them.",
    ),
]

DenseModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="The dense model.",
        show_default="the one the path was searched on",
        rich_help_panel=_LOAD,
    ),
]
TokenizerSource = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        help="Folder or Hub id of the tokenizer or processor.",
        show_default="beside the model",
        rich_help_panel=_LOAD,
    ),
]
Dtype = Annotated[
    str,
    typer.Option("--dtype", help="float32, bfloat16, ...; auto: as stored.", rich_help_panel=_LOAD),
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="cpu, cuda, cuda:1, ...", rich_help_panel=_LOAD),
]
Revision = Annotated[
    str | None,
    typer.Option("--revision", help="Branch, tag or commit on the Hub.", rich_help_panel=_LOAD),
]
Token = Annotated[
    str | None,
    typer.Option("--token", help="Access token of the Hub.", rich_help_panel=_LOAD),
]
CacheDir = Annotated[
    str | None,
    typer.Option("--cache-dir", help="Where downloads are kept.", rich_help_panel=_LOAD),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code", help="Run code that comes with the model.", rich_help_panel=_LOAD
    ),
]

Output = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="DIR", help="Folder to write.", show_default=False),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace a folder that is not empty.", rich_help_panel=_SHOWN),
]
SpeedFlag = Annotated[
    bool,
    typer.Option(
        "--speed/--no-speed", help="Measure how fast it runs, too.", rich_help_panel=_SHOWN
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON instead of text.", rich_help_panel=_SHOWN),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", help="No progress, no notes.", rich_help_panel=_SHOWN),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", help="Show what transformers and the Hub say.", rich_help_panel=_SHOWN
    ),
]
