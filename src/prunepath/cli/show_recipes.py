"""What `methods` prints: recipes and methods in a table, or one with its settings and as YAML."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from prunepath.cli.terminal import new_table, open_console, print_lines

if TYPE_CHECKING:
    from prunepath.recipes import Recipe

__all__ = ["recipe_text", "recipes_text"]


def recipes_text(recipes: Sequence[Recipe]) -> None:
    """Name, one line, cost, needs and paper of each."""
    from rich.text import Text

    from prunepath.api.recipes import USUAL, cost_class, needs

    console = open_console()
    table = new_table("name", "cost", "needs", "refit", "what it does", "paper", left=range(6))
    for recipe in recipes:
        refit = recipe.refit or USUAL["refit"]
        cells = (cost_class(recipe), needs(recipe), refit, recipe.summary, recipe.paper)
        table.add_row(*map(Text, (recipe.name, *cells)))
    console.print(table)
    print_lines(
        console,
        "after a + a name takes a refit, a layout or a rule: taylor+sequential, spp+uniform",
        "next: prunepath methods NAME, or prunepath compare MODEL --methods NAME,NAME -o DIR",
    )


def recipe_text(recipe: Recipe) -> None:
    """Settings with the values the recipe gives them, and the recipe as a file holds it."""
    from prunepath.allocation.rules import rule_settings
    from prunepath.api.recipes import USUAL, cost_class, make_method, needs

    method = make_method(recipe)
    lines = [
        f"{recipe.name}: {recipe.summary}",
        f"cost {cost_class(recipe)}, needs {needs(recipe)}, objective {method.objective()}",
        f"settings of the method {recipe.method} ({method.summary}):",
    ]
    lines += _settings("--set", method.config) or ["  none"]
    rule = recipe.rule or USUAL["rule"]
    ruled = _settings("--rule-set", rule_settings(rule, recipe.rule_set))
    lines += [f"settings of the rule {rule}, for extract:", *ruled] if ruled else []
    lines += ["as a file for --recipe:", *(f"  {line}" for line in recipe.to_yaml().splitlines())]
    print_lines(open_console(), *lines)


def _settings(flag: str, settings: Any) -> list[str]:
    """A line for every setting: its flag with the value it has, and what it is."""
    rows = [
        (
            f"{item.name}={_setting(getattr(settings, item.name))}",
            str(item.metadata.get("help", "")),
        )
        for item in fields(settings)
    ]
    width = max((len(left) for left, _ in rows), default=0)
    return [f"  {flag} {left:<{width}}  {right}".rstrip() for left, right in rows]


def _setting(value: Any) -> str:
    """A value as `--set` reads it."""
    return value if isinstance(value, str) else json.dumps(value)
