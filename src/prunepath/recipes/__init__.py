"""Recipes: published methods as data, each a method with the way its paper cuts and repairs.

Read `recipe` (what a recipe says and its file), then `table` (those that ship).
"""

from __future__ import annotations

from prunepath.recipes.recipe import Recipe
from prunepath.recipes.table import RECIPES

__all__ = ["RECIPES", "Recipe"]
