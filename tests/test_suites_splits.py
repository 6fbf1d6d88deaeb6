"""Splits have the wanted size, are the same everywhere, and folds cover everything once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from suites.splits import folds, split

IDS = st.lists(st.text("abcdefgh_", min_size=1), min_size=5, max_size=60, unique=True)


@given(IDS, st.integers(1, 4))
def test_a_split_has_the_wanted_size_whatever_the_ids(ids: list[str], size: int) -> None:
    train, test = split(ids, size)
    assert len(test) == size
    assert sorted(train + test) == sorted(ids)


@given(IDS)
def test_a_split_does_not_depend_on_the_order_of_the_tasks(ids: list[str]) -> None:
    assert split(ids, 3) == split(list(reversed(ids)), 3)


@given(IDS, st.integers(2, 5))
def test_every_task_is_tested_in_exactly_one_fold(ids: list[str], count: int) -> None:
    made = folds(ids, count)
    assert sorted(task for _, test in made for task in test) == sorted(ids)
    assert max(len(test) for _, test in made) - min(len(test) for _, test in made) <= 1
    assert all(not set(train) & set(test) and len(train) + len(test) == len(ids) for train, test in made)


@pytest.mark.parametrize("size", [0, 5, -1])
def test_a_split_with_an_empty_part_is_refused(size: int) -> None:
    with pytest.raises(UsageError):
        split(["a", "b", "c", "d", "e"], size)
