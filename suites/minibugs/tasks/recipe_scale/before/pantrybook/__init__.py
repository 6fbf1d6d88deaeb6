"""Recipes, scaled to the number of guests, and shopping lists."""

from pantrybook.book import RecipeBook
from pantrybook.recipe import Ingredient, Recipe

__all__ = ["Ingredient", "Recipe", "RecipeBook"]
