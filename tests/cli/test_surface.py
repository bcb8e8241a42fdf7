"""The words users depend on, frozen: public names, commands and flags.

A change here is a change of the interface: add a line on purpose, and say so in CHANGELOG.md.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer

import prunepath
from prunepath.cli.main import app

PUBLIC_NAMES = {
    "Budget",
    "Family",
    "Kind",
    "Merging",
    "Place",
    "PrunepathError",
    "Recipe",
    "SolutionPath",
    "Stack",
    "__version__",
    "compare",
    "curve",
    "evaluate",
    "extract",
    "inspect",
    "load",
    "register_family",
    "rescore",
    "search",
}

DATA = {"--data", "--windows", "--window", "--text-field", "--label-field", "--split"}
LOADING = {
    "--tokenizer",
    "--dtype",
    "--device",
    "--revision",
    "--token",
    "--cache-dir",
    "--trust-remote-code",
}
SHOWN = {"--json", "--quiet", "--verbose"}
BUDGETS = {"--params", "--macs", "--memory", "--latency", "--ratio"}

# Command -> its flags; positional arguments are in capitals.
COMMANDS = {
    "search": DATA
    | LOADING
    | SHOWN
    | {"MODEL", "--output", "-o", "--task", "--method", "--recipe", "--set"}
    | {"--objective", "--seed"}
    | {"--moment-windows", "--refit-windows", "--holdout-windows", "--overwrite"},
    "rescore": {"PATH", "--output", "-o", "--set", "--overwrite", "--json", "--verbose"},
    "extract": BUDGETS
    | LOADING
    | SHOWN
    | {"PATH", "--output", "-o", "--layout", "--kinds", "--multiple", "--floor"}
    | {"--sequence-length", "--refit", "--bias", "--no-bias", "--model", "--overwrite"}
    | {"--rule", "--rule-set", "--rearrange"}
    | {"--token-share", "--token-decay", "--token-schedule"},
    "inspect": {"MODEL|PATH", "--task", "--sequence-length", "--revision", "--token", "--cache-dir"}
    | {"--trust-remote-code", "--json", "--verbose"},
    "evaluate": DATA | LOADING | SHOWN | {"MODEL", "--task", "--speed", "--no-speed"},
    "curve": DATA
    | LOADING
    | SHOWN
    | {"PATH", "--output", "-o", "--points", "--layouts", "--refit", "--model"}
    | {"--rule", "--rule-set", "--speed", "--no-speed"},
    "compare": DATA
    | LOADING
    | SHOWN
    | {"MODEL", "--output", "-o", "--methods", "--ratios", "--seeds", "--refit", "--layout"}
    | {"--task", "--evaluation-data", "--evaluation-windows", "--evaluation-split"}
    | {"--moment-windows", "--refit-windows", "--holdout-windows", "--choices", "--questions"},
    "methods": {"NAME"},
}


def group() -> Any:
    return typer.main.get_command(app)


def words_of(command: Any) -> set[str]:
    found: set[str] = set()
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            found.add(parameter.metavar or parameter.name.upper())
        else:
            found.update(parameter.opts, parameter.secondary_opts)
    return found - {"--help"}


def test_public_names() -> None:
    assert set(prunepath.__all__) == PUBLIC_NAMES


def test_commands() -> None:
    assert set(group().commands) == set(COMMANDS)
    assert words_of(group()) == {"--version"}


@pytest.mark.parametrize("name", COMMANDS)
def test_flags(name: str) -> None:
    assert words_of(group().commands[name]) == COMMANDS[name]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "methods"])
def test_flags_are_the_words_of_the_python_arguments(name: str) -> None:
    import importlib
    import inspect

    verb = getattr(importlib.import_module(f"prunepath.api.{name}"), name)
    arguments = {
        "--" + each.replace("_", "-")
        for each in inspect.signature(verb).parameters
        if each != "hub"
    }
    flags = {word for word in COMMANDS[name] if re.match("--(?!no-)", word)}
    # The position of MODEL and PATH, what only a terminal has, and what `**hub` stands for.
    only_flags = SHOWN | {"--set", "--revision", "--token", "--cache-dir"}
    only_arguments = {"--path", "--source", "--model", "--config", "--budget", "--progress"}
    assert flags - only_flags - (LOADING | {"--model"}) <= arguments
    assert arguments - only_arguments <= flags


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_has_a_help_text(name: str) -> None:
    command = group().commands[name]
    assert command.help
    assert all(parameter.help for parameter in command.params)
