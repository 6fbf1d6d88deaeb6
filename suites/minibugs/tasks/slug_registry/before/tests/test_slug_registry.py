import re

import pytest

from slugbook import SlugRegistry, slugify, truncate

WELL_FORMED = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*$")


def test_titles_become_words_with_hyphens():
    assert slugify("Hello, World!", 40) == "hello-world"
    assert slugify("  Crème brûlée -- a how-to ", 40) == "creme-brulee-a-how-to"
    assert slugify("?!", 40) == "untitled"


def test_a_cut_in_the_middle_of_a_word():
    assert slugify("abcdef ghijkl mnop", 9) == "abcdef-gh"
    assert truncate("abcdef", 6) == "abcdef"
    assert truncate("abcdef", 3) == "abc"


def test_a_cut_slug_never_ends_in_a_hyphen():
    assert slugify("abcdef ghijkl mnop", 7) == "abcdef"
    assert slugify("one two three four five", 14) == "one-two-three"
    for max_length in range(1, 25):
        slug = slugify("a bc def ghij klmno pq", max_length)
        assert WELL_FORMED.match(slug), slug
        assert len(slug) <= max_length


def test_equal_titles_are_numbered():
    registry = SlugRegistry()
    slugs = [registry.register("News", page) for page in range(3)]
    assert slugs == ["news", "news-2", "news-3"]
    assert [registry[slug] for slug in slugs] == [0, 1, 2]


def test_numbered_slugs_fit_the_maximum_length():
    registry = SlugRegistry(max_length=12)
    slugs = [registry.register("abcdefghijklmnop", page) for page in range(12)]
    assert slugs[:3] == ["abcdefghijkl", "abcdefghij-2", "abcdefghij-3"]
    assert slugs[8:] == ["abcdefghij-9", "abcdefghi-10", "abcdefghi-11", "abcdefghi-12"]


def test_numbered_slugs_have_one_hyphen_before_the_number():
    registry = SlugRegistry(max_length=12)
    slugs = [registry.register("abcdefghi jkl", page) for page in range(3)]
    assert slugs == ["abcdefghi-jk", "abcdefghi-2", "abcdefghi-3"]


def test_long_titles_stay_unique_and_well_formed():
    registry = SlugRegistry(max_length=16)
    titles = ["Ten green bottles on a wall", "Ten green bottles"] * 10
    slugs = [registry.register(title, None) for title in titles]
    assert len(set(slugs)) == 20
    assert all(len(slug) <= 16 and WELL_FORMED.match(slug) for slug in slugs)


def test_released_slugs_are_given_again():
    registry = SlugRegistry()
    registry.register("News", 1)
    registry.register("News", 2)
    registry.release("news")
    assert "news" not in registry
    assert registry.register("News", 3) == "news"


def test_too_little_room_is_refused():
    with pytest.raises(ValueError):
        SlugRegistry(max_length=5)
