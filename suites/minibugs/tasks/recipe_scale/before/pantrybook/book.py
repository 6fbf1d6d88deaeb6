"""A collection of recipes."""


class RecipeBook:
    """Recipes by title."""

    def __init__(self):
        self._recipes = {}

    def add(self, recipe):
        self._recipes[recipe.title] = recipe

    def get(self, title, servings=None):
        """Return a recipe, scaled to `servings` when given."""
        recipe = self._recipes[title]
        if servings is None:
            return recipe
        return recipe.scaled(servings)

    def shopping_list(self, menu):
        """Return {(name, unit): amount} for a menu {title: servings}."""
        needed = {}
        for title, servings in menu.items():
            for ingredient in self.get(title, servings).ingredients:
                key = (ingredient.name, ingredient.unit)
                needed[key] = needed.get(key, 0) + ingredient.amount
        return needed
