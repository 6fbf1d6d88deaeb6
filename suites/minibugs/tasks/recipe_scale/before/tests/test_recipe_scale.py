import pytest

from pantrybook import Ingredient, Recipe, RecipeBook


def make_book():
    book = RecipeBook()
    book.add(Recipe("soup", 4, [Ingredient("leek", 600), Ingredient("milk", 200, "ml")]))
    book.add(Recipe("pancakes", 2, [Ingredient("flour", 150), Ingredient("milk", 300, "ml")]))
    return book


def amounts(recipe):
    return [ingredient.amount for ingredient in recipe.ingredients]


def test_scaled_amounts_are_in_proportion():
    assert amounts(make_book().get("soup", 8)) == [1200, 400]
    assert amounts(make_book().get("soup", 2)) == [300, 100]
    assert amounts(make_book().get("pancakes", 3)) == [225, 450]


def test_scaled_recipe_keeps_title_and_units():
    recipe = make_book().get("soup", 8)
    assert (recipe.title, recipe.servings) == ("soup", 8)
    assert [item.unit for item in recipe.ingredients] == ["g", "ml"]


def test_the_book_keeps_the_original():
    book = make_book()
    book.get("soup", 8)
    assert amounts(book.get("soup")) == [600, 200]
    assert book.get("soup").servings == 4


def test_scaling_twice_starts_from_the_original():
    book = make_book()
    seen = [amounts(book.get("pancakes", servings)) for servings in (4, 4, 1, 2)]
    assert seen == [[300, 600], [300, 600], [75, 150], [150, 300]]


def test_two_scaled_recipes_are_independent():
    book = make_book()
    small, large = book.get("soup", 2), book.get("soup", 40)
    assert amounts(small) == [300, 100]
    assert amounts(large) == [6000, 2000]
    assert small.ingredients[0] is not large.ingredients[0]


def test_shopping_list_adds_up_shared_ingredients():
    needed = make_book().shopping_list({"soup": 8, "pancakes": 2})
    assert needed == {("leek", "g"): 1200, ("milk", "ml"): 700, ("flour", "g"): 150}


def test_shopping_list_can_be_written_again():
    book = make_book()
    first = book.shopping_list({"soup": 6, "pancakes": 6})
    assert book.shopping_list({"soup": 6, "pancakes": 6}) == first


def test_servings_must_be_positive():
    with pytest.raises(ValueError):
        make_book().get("soup", 0)
