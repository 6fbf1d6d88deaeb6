from itertools import count

import pytest

from rollwindow import chunks, first_alarm, moving_average, moving_range, windows


def test_too_few_values_have_no_window():
    assert list(windows([], 1)) == []
    assert list(windows([1, 2], 3)) == []


def test_all_windows_of_a_series():
    assert list(windows([1, 2, 3, 4], 2)) == [(1, 2), (2, 3), (3, 4)]
    assert list(windows("abcde", 4)) == [("a", "b", "c", "d"), ("b", "c", "d", "e")]
    assert list(windows([7, 8, 9], 1)) == [(7,), (8,), (9,)]


def test_a_series_of_exactly_the_size_has_one_window():
    for size in (1, 2, 5):
        assert list(windows(range(size), size)) == [tuple(range(size))]


def test_number_of_windows():
    for length in range(8):
        for size in range(1, 5):
            assert len(list(windows(range(length), size))) == max(0, length - size + 1)


def test_a_window_is_there_with_its_last_value():
    source = count()
    series = windows(source, 3)
    assert next(series) == (0, 1, 2)
    assert next(source) == 3
    assert next(series) == (1, 2, 4)


def test_windows_without_size_are_refused():
    for cut in (windows, chunks):
        with pytest.raises(ValueError):
            list(cut([1, 2, 3], 0))


def test_chunks_do_not_overlap():
    assert list(chunks([1, 2, 3, 4], 2)) == [(1, 2), (3, 4)]
    assert list(chunks([1, 2, 3, 4, 5], 2)) == [(1, 2), (3, 4), (5,)]
    assert list(chunks([], 2)) == []


def test_moving_average_includes_the_newest_value():
    assert list(moving_average([1, 2, 3, 10], 2)) == [1.5, 2.5, 6.5]
    assert list(moving_average([4, 8], 2)) == [6.0]


def test_moving_range():
    assert list(moving_range([5, 1, 2, 9, 9], 3)) == [4, 8, 7]


def test_alarm_comes_with_the_value_that_causes_it():
    assert first_alarm([1, 1, 1, 9, 1], 2, limit=4) == 3
    assert first_alarm([1, 1, 1, 9], 2, limit=4) == 3
    assert first_alarm([5, 1], 1, limit=4) == 0


def test_no_alarm():
    assert first_alarm([1, 2, 3], 2, limit=4) is None
