"""Recipes and their ingredients."""


class Ingredient:
    """An amount of something, in grams, millilitres or pieces."""

    def __init__(self, name, amount, unit="g"):
        self.name = name
        self.amount = amount
        self.unit = unit

    def scale(self, factor):
        """Multiply the amount, in place."""
        self.amount *= factor

    def copy(self):
        return Ingredient(self.name, self.amount, self.unit)

    def __eq__(self, other):
        if not isinstance(other, Ingredient):
            return NotImplemented
        return (self.name, self.amount, self.unit) == (other.name, other.amount, other.unit)

    def __repr__(self):
        return "Ingredient({!r}, {!r}, {!r})".format(self.name, self.amount, self.unit)


class Recipe:
    """A title, the number of servings and the ingredients for that many."""

    def __init__(self, title, servings, ingredients):
        if servings < 1:
            raise ValueError("a recipe serves at least one")
        self.title = title
        self.servings = servings
        self.ingredients = list(ingredients)

    def scaled(self, servings):
        """Return this recipe for another number of servings."""
        other = Recipe(self.title, servings, self.ingredients)
        for ingredient in other.ingredients:
            ingredient.scale(servings / self.servings)
        return other
