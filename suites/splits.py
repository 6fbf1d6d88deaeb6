"""Train and test splits: tasks ranked by a hash of their id, and a fixed number taken.

A hash threshold would give a size that depends on the ids; a rank gives the size that was asked for, and the same
tasks on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from harness.errors import UsageError

TEST_SIZE = 12
"""The default size of a test split."""


def ranked(ids: Sequence[str]) -> list[str]:
    """The ids in the order of their SHA-256."""
    return sorted(ids, key=lambda task: hashlib.sha256(task.encode()).hexdigest())


def split(ids: Sequence[str], test_size: int = TEST_SIZE) -> tuple[list[str], list[str]]:
    """(train, test), each sorted. Raises UsageError where one would be empty."""
    if not 0 < test_size < len(ids):
        raise UsageError(f"--test-size must be between 1 and {len(ids) - 1} for {len(ids)} tasks, not {test_size}")
    order = ranked(ids)
    return sorted(order[test_size:]), sorted(order[:test_size])


def part_of(task: str, ids: Sequence[str]) -> Literal["train", "test", ""]:
    """The part of the default split that a task belongs to; empty where there are too few tasks for a split."""
    if len(ids) <= TEST_SIZE:
        return ""
    return "test" if task in split(ids)[1] else "train"


def folds(ids: Sequence[str], count: int) -> list[tuple[list[str], list[str]]]:
    """`count` pairs (train, test); each task is in exactly one test part, and the sizes differ by at most one."""
    if not 1 < count <= len(ids):
        raise UsageError(f"--folds must be between 2 and {len(ids)} for {len(ids)} tasks, not {count}")
    order = ranked(ids)
    tests = [sorted(order[start::count]) for start in range(count)]
    return [(sorted(set(order) - set(test)), test) for test in tests]
