import pytest

from pagewise import PageNotFound, Paginator, link_row, window


def page_of(count, number):
    return Paginator(list(range(count * 10)), 10).page(number)


def test_page_count_rounds_up():
    assert Paginator(range(30), 10).page_count == 3
    assert Paginator(range(31), 10).page_count == 4
    assert Paginator([], 10).page_count == 1


def test_last_page_holds_the_rest():
    page = Paginator(list("abcdefg"), 3).page(3)
    assert page.items == ["g"]
    assert page.has_previous and not page.has_next


def test_unknown_pages_are_refused():
    pages = Paginator(list("abc"), 2)
    for number in (0, 3, -1):
        with pytest.raises(PageNotFound):
            pages.page(number)


def test_window_is_symmetric_in_the_middle():
    assert window(page_of(10, 5)) == [3, 4, 5, 6, 7]
    assert window(page_of(10, 5), radius=1) == [4, 5, 6]
    assert window(page_of(20, 11), radius=4) == [7, 8, 9, 10, 11, 12, 13, 14, 15]


def test_window_is_cut_at_the_ends():
    assert window(page_of(10, 1)) == [1, 2, 3]
    assert window(page_of(10, 10)) == [8, 9, 10]
    assert window(page_of(10, 9), radius=3) == [6, 7, 8, 9, 10]


def test_window_always_holds_the_current_page():
    for count in (1, 2, 7):
        for number in range(1, count + 1):
            assert number in window(page_of(count, number), radius=0)


def test_link_row_fills_gaps_with_an_ellipsis():
    assert link_row(page_of(10, 5), radius=1) == ["1", "...", "4", "5", "6", "...", "10"]


def test_link_row_of_a_single_page():
    assert link_row(page_of(1, 1)) == ["1"]
