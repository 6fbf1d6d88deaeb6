import pytest

from linefold import box, fold, fold_paragraphs

TEXT = "the quick brown fox jumps over the lazy dog and a cat"


def test_short_text_is_one_line():
    assert fold("one two", 20) == ["one two"]
    assert fold("  one\n two ", 20) == ["one two"]


def test_no_text_is_no_line():
    assert fold("", 10) == []
    assert fold(" \n ", 10) == []


def test_a_line_may_be_exactly_as_wide_as_the_width():
    assert fold("aaa bbb", 7) == ["aaa bbb"]
    assert fold("aaa bbb ccc", 7) == ["aaa bbb", "ccc"]


def test_the_space_between_words_counts():
    assert fold("aaa bbb", 6) == ["aaa", "bbb"]
    assert fold("aa bb cc", 4) == ["aa", "bb", "cc"]
    assert fold("a b c d e", 4) == ["a b", "c d", "e"]


def test_no_line_is_longer_than_the_width():
    for width in range(5, 60):
        lines = fold(TEXT, width)
        assert max(len(line) for line in lines) <= width
        assert " ".join(lines) == TEXT


def test_every_line_takes_as_many_words_as_fit():
    for width in range(5, 60):
        lines = fold(TEXT, width)
        for line, following in zip(lines, lines[1:]):
            assert len(line + " " + following.split()[0]) > width


def test_long_words_get_their_own_line():
    assert fold("a incomprehensible b", 6) == ["a", "incomprehensible", "b"]


def test_indent_counts():
    assert fold("aaa bbb", 9, indent="  ") == ["  aaa bbb"]
    assert fold("aaa bbb", 8, indent="  ") == ["  aaa", "  bbb"]


def test_paragraphs_are_kept_apart():
    assert fold_paragraphs("aa bb\n\n\n\ncc", 20) == "aa bb\n\ncc"
    assert fold_paragraphs("aa bb\n\ncc dd", 4) == "aa\nbb\n\ncc\ndd"


def test_box_has_straight_sides():
    for width in range(10, 40):
        assert {len(line) for line in box(TEXT, width)} == {width}


def test_box_too_small():
    with pytest.raises(ValueError):
        box("a", 4)
