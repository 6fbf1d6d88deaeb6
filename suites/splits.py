"""Train and test splits: tasks ranked by a hash of their id, and a fixed number taken.

A hash threshold would give a size that depends on the ids; a rank gives the size that was asked for, and the same
tasks on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Literal

from harness.errors import UsageError

TEST_SIZE = 12
"""The default size of a test split."""


def ranked(ids: Sequence[str]) -> list[str]:
    """The ids in the order of their SHA-256."""
    return sorted(ids, key=lambda task: hashlib.sha256(task.encode()).hexdigest())


def split(
    ids: Sequence[str], test_size: int = TEST_SIZE, groups: Mapping[str, str] | None = None
) -> tuple[list[str], list[str]]:
    """(train, test), each sorted. Raises UsageError where one would be empty.

    Args:
        groups: by task, the group that it stays together with: groups are then taken in the order of their hash for as
            long as they do not bring the test part further from its size.
    """
    if not 0 < test_size < len(ids):
        raise UsageError(f"--test-size must be between 1 and {len(ids) - 1} for {len(ids)} tasks, not {test_size}")
    members = _members(ids, groups)
    test: list[str] = []
    for group in ranked(list(members)):
        grown = len(test) + len(members[group])
        if abs(grown - test_size) <= abs(len(test) - test_size):
            test += members[group]
    if not 0 < len(test) < len(ids):
        raise UsageError(f"{len(members)} projects do not make two parts with about {test_size} tasks to test on")
    return sorted(set(ids) - set(test)), sorted(test)


def _members(ids: Sequence[str], groups: Mapping[str, str] | None) -> dict[str, list[str]]:
    members: dict[str, list[str]] = {}
    for task in ids:
        members.setdefault(groups[task] if groups else task, []).append(task)
    return members


def part_of(task: str, ids: Sequence[str]) -> Literal["train", "test", ""]:
    """The part of the default split that a task belongs to; empty where there are too few tasks for a split."""
    if len(ids) <= TEST_SIZE:
        return ""
    return "test" if task in split(ids)[1] else "train"


def folds(ids: Sequence[str], count: int, groups: Mapping[str, str] | None = None) -> list[tuple[list[str], list[str]]]:
    """`count` pairs (train, test); each task is in exactly one test part, and the sizes differ by at most one.

    With groups, which stay whole, the largest are dealt first, each to the part that has the fewest tasks.
    """
    members = _members(ids, groups)
    if not 1 < count <= len(members):
        raise UsageError(f"--folds must be between 2 and {len(members)}, not {count}")
    tests: list[list[str]] = [[] for _ in range(count)]
    for group in sorted(ranked(list(members)), key=lambda name: -len(members[name])):
        min(tests, key=len).extend(members[group])
    return [(sorted(set(ids) - set(test)), sorted(test)) for test in tests]
