"""Which recipe is meant, whether its words exist, and what it settles that the user left open.

A name is that of a recipe, else of a method, which is a recipe that leaves everything open. Words
after a `+` say otherwise about one thing: `fisher+sequential` is the published method with our
repair on top, `spp+uniform` has every layer the same size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunepath.errors import RequestError

if TYPE_CHECKING:
    from prunepath.methods.method import Method
    from prunepath.recipes import Recipe

__all__ = [
    "REARRANGEMENTS",
    "USUAL",
    "cost_class",
    "find_recipe",
    "listed_recipes",
    "make_method",
    "needs",
    "rearrangement",
    "settled",
    "with_word",
]

USUAL: dict[str, Any] = {
    "layout": "per-layer",
    "kinds": (),
    "multiple": 8,
    "floor": 8,
    "rule": "order",
    "rule_set": {},
    "rearrange": "none",
    "refit": "sequential",
    "bias": False,
}
"""Options of an extraction where neither the user nor a recipe says anything."""

REARRANGEMENTS = ("none", "kwon", "swaps")

_SUFFIXES = (".yaml", ".yml", ".json")
_CLASSES = ("data-free", "forward-only", "gradients", "search")


def find_recipe(what: str | Path | Recipe) -> Recipe:
    """A recipe by its name, that of a method, or its file; checked.

    Args:
        what: name of a recipe or of a method, with words after a `+` if it is to do one thing
            otherwise; a `.yaml` or `.json` file; or a recipe.

    Returns:
        The recipe.

    Raises:
        RequestError: an unknown name or word, or a file that is no recipe.

    Example:
        >>> find_recipe("taylor").refit, find_recipe("taylor+sequential").refit
        ('none', 'sequential')
    """
    from prunepath.recipes import Recipe

    if isinstance(what, Recipe):
        return _checked(what)
    if isinstance(what, Path) or what.endswith(_SUFFIXES):
        return _checked(Recipe.load(what))
    name, *words = what.split("+")
    recipe = _named(name)
    for word in words:
        recipe = with_word(recipe, word.strip())
    return _checked(recipe)


def with_word(recipe: Recipe, word: str) -> Recipe:
    """A recipe that does one thing otherwise, and says so in its name.

    Args:
        recipe: any recipe.
        word: a refit, a layout, a rule, `rearrange`, `swaps`, or after `moments` also `bias`.

    Returns:
        The recipe itself, where it does that already.

    Raises:
        RequestError: an unknown word.

    Example:
        >>> with_word(find_recipe("fisher"), "sequential").name
        'fisher+sequential'
        >>> with_word(find_recipe("spp"), "sequential").name
        'spp'
    """
    from prunepath.allocation.steps import LAYOUTS, RULES
    from prunepath.api.repair import REFITS

    if word == "bias" and recipe.refit == "moments":
        found = replace(recipe, bias=True)
    elif word in REFITS:
        found = replace(recipe, refit=word, bias=None)
    elif word in LAYOUTS:
        found = replace(recipe, layout=word)
    elif word in RULES:
        found = replace(recipe, rule=word, rule_set={})
    elif word == "rearrange":
        found = replace(recipe, rearrange="kwon")
    elif word == "swaps":
        found = replace(recipe, rearrange="swaps")
    else:
        raise RequestError(
            f"unknown word '{word}' after '{recipe.name}+'; there stands a refit "
            f"({', '.join(REFITS)}), a layout ({', '.join(LAYOUTS)}), a rule ({', '.join(RULES)}), "
            "rearrange, swaps, or bias after moments"
        )
    same = settled(found.extraction, {})[0] == settled(recipe.extraction, {})[0]
    return recipe if same else replace(found, name=f"{recipe.name}+{word}")


def listed_recipes() -> list[Recipe]:
    """All recipes, then the methods that no recipe is named after, by name."""
    from prunepath.methods.method import METHODS
    from prunepath.recipes import RECIPES

    names = list(RECIPES)
    return [
        find_recipe(name) for name in [*names, *(each for each in METHODS if each not in names)]
    ]


def make_method(recipe: Recipe, config: Mapping[str, Any] | None = None) -> Method:
    """The method of a recipe with its settings; settings given here win over those of the recipe.

    Raises:
        RequestError: an unknown setting, or a value it does not take.
    """
    from prunepath.methods.method import METHODS

    chosen = METHODS[recipe.method]
    return chosen(chosen.Config.from_dict({**recipe.config, **(config or {})}))


def settled(
    recipe: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of an extraction: the user's, else the recipe's, else the usual.

    Args:
        recipe: what a path says about its recipe; empty where it has none.
        given: option -> what the user said, None for nothing.

    Returns:
        All options, and those of them that the recipe settled otherwise than usual.

    Example:
        >>> options, taken = settled({"name": "mine", "refit": "none"}, {"layout": "uniform"})
        >>> options["refit"], options["layout"], taken
        ('none', 'uniform', {'refit': 'none'})
    """
    said, recipe = _in_words(given), _in_words(recipe)
    taken = {name: recipe[name] for name in USUAL if name in recipe and recipe[name] != USUAL[name]}
    taken = {name: value for name, value in taken.items() if name not in said}
    if "rule" in said:  # its settings are those of another
        taken.pop("rule_set", None)
    if "refit" in said:  # whether biases move is part of the repair
        taken.pop("bias", None)
    return {**USUAL, **taken, **said}, taken


def rearrangement(word: bool | str) -> str:
    """How units are exchanged, as one of `REARRANGEMENTS`; True and False are older words.

    Raises:
        RequestError: an unknown word.

    Example:
        >>> rearrangement(True), rearrangement("swaps"), rearrangement(False)
        ('kwon', 'swaps', 'none')
    """
    found = {True: "kwon", False: "none"}[word] if isinstance(word, bool) else word
    if found not in REARRANGEMENTS:
        raise RequestError(
            f"unknown rearrangement '{word}'; use kwon (exchange units within their group by what "
            "they do together), swaps (under a model of all layers, measured where the cut is) or "
            "none"
        )
    return found


def _in_words(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options that say something, the rearrangement as one of its words."""
    said = {name: value for name, value in options.items() if value is not None}
    if "rearrange" in said:
        said["rearrange"] = rearrangement(said["rearrange"])
    return said


def cost_class(recipe: Recipe) -> str:
    """The most that ordering, choosing, exchanging or repairing takes, one of
    `methods.method.CostClass`."""
    from prunepath.allocation.rules import MEASURING

    parts = [make_method(recipe).cost_class()]
    if recipe.refit != "none":
        parts.append("forward-only")
    if recipe.rule in MEASURING:
        parts.append("search")
    if rearrangement(recipe.rearrange or False) != "none":
        parts.append("gradients")
    return max(parts, key=_CLASSES.index)


def needs(recipe: Recipe) -> str:
    """What must be given, in words: `"nothing"`, `"samples"` or `"samples with labels"`."""
    if cost_class(recipe) == "data-free":
        return "nothing"
    labels = make_method(recipe).objective() == "task"
    return "samples with labels" if labels else "samples"


def _named(name: str) -> Recipe:
    from prunepath.methods.method import METHODS
    from prunepath.recipes import RECIPES, Recipe
    from prunepath.registry import did_you_mean

    recipes, methods = list(RECIPES), list(METHODS)
    if name in recipes:
        found = RECIPES[name]
        if not isinstance(found, Recipe):
            raise RequestError(
                f"the entry point '{name}' of prunepath.recipes is a {type(found).__name__}; it "
                "must name a Recipe"
            )
        return found
    if name in methods:
        return Recipe(name=name, method=name, summary=METHODS[name].summary)
    known = sorted({*recipes, *methods})
    raise RequestError(
        f"unknown method '{name}'{did_you_mean(name, known)} Known: {', '.join(known)}"
    )


def _checked(recipe: Recipe) -> Recipe:
    """Refuse words that do not exist, before anything is loaded."""
    from prunepath.allocation.steps import StepOptions
    from prunepath.api.repair import require_refit

    try:
        make_method(recipe)
        options, _ = settled(recipe.extraction, {})
        names = ("layout", "multiple", "floor", "rule", "rule_set")
        StepOptions(**{name: options[name] for name in names})
        require_refit(options["refit"], bias=options["bias"])
        rearrangement(options["rearrange"])
    except RequestError as error:
        raise RequestError(f"the recipe '{recipe.name}': {error}") from None
    return recipe
