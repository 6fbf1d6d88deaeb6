"""Splits have the wanted size, are the same everywhere, and folds cover everything once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from suites.base import load
from suites.splits import TEST_SIZE, folds, split

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


# ---- by group

GROUPED = st.lists(st.integers(1, 9), min_size=2, max_size=12)


def grouped(sizes: list[int]) -> dict[str, str]:
    """By task its group: as many groups as there are sizes."""
    return {f"g{group}-{number}": f"g{group}" for group, size in enumerate(sizes) for number in range(size)}


def is_whole(train: list[str], test: list[str], groups: dict[str, str]) -> bool:
    return not {groups[task] for task in train} & {groups[task] for task in test}


@given(GROUPED, st.floats(0.1, 0.9))
def test_a_split_keeps_groups_whole_and_loses_no_task(sizes: list[int], share: float) -> None:
    groups = grouped(sizes)
    size = min(len(groups) - 1, max(1, int(share * len(groups))))
    try:
        train, test = split(list(groups), size, groups)
    except UsageError as error:
        assert str(error) == f"{len(sizes)} projects do not make two parts with about {size} tasks to test on"
        return
    assert is_whole(train, test, groups)
    assert sorted(train + test) == sorted(groups)
    assert train
    assert test


@given(GROUPED, st.integers(1, 20))
def test_a_split_by_group_is_as_near_as_any_one_group_more_or_less_can_bring_it(sizes: list[int], size: int) -> None:
    groups = grouped(sizes)
    try:
        train, test = split(list(groups), min(size, len(groups) - 1), groups)
    except UsageError:
        return
    size = min(size, len(groups) - 1)
    left_out = Counter(groups[task] for task in train)
    assert all(abs(len(test) + more - size) > abs(len(test) - size) for more in left_out.values())


@given(GROUPED)
def test_a_split_by_group_does_not_depend_on_the_order_of_the_tasks(sizes: list[int]) -> None:
    groups = grouped([*sizes, 1, 1])
    again = dict(reversed(groups.items()))
    assert split(list(groups), 2, groups) == split(list(again), 2, again)


def test_groups_of_one_are_no_groups() -> None:
    ids = [f"task-{number}" for number in range(40)]
    groups = {task: task for task in ids}
    assert split(ids, 12, groups) == split(ids, 12)
    assert folds(ids, 5, groups) == folds(ids, 5)


@given(GROUPED, st.integers(2, 5))
def test_folds_keep_groups_whole_and_differ_by_no_more_than_the_largest_group(sizes: list[int], count: int) -> None:
    groups = grouped(sizes)
    if count > len(sizes):
        with pytest.raises(UsageError, match="--folds must be between"):
            folds(list(groups), count, groups)
        return
    made = folds(list(groups), count, groups)
    assert sorted(task for _, test in made for task in test) == sorted(groups)
    assert all(is_whole(train, test, groups) for train, test in made)
    parts = [len(test) for _, test in made]
    assert min(parts) > 0
    assert max(parts) - min(parts) <= max(sizes)


def test_a_group_larger_than_the_test_part_does_not_spoil_it() -> None:
    groups = grouped([50, 3, 4, 2])
    _, test = split(list(groups), 6, groups)
    assert "g0" not in {groups[task] for task in test}
    assert 5 <= len(test) <= 7


def test_groups_that_make_no_two_parts_are_refused() -> None:
    with pytest.raises(UsageError, match="1 projects do not make two parts with about 2 tasks to test on"):
        split(["a", "b", "c", "d"], 2, dict.fromkeys("abcd", "one"))


def test_the_committed_splits_are_those_of_tasks_without_groups() -> None:
    committed = Path(__file__).parent.parent / "eval" / "suites"
    ids = [task.id for task in load("quixbugs").tasks()]
    parts = [json.loads((committed / f"quixbugs_{part}_suite.json").read_text())["tasks"] for part in ("train", "test")]
    assert split(ids, TEST_SIZE) == tuple(parts)
