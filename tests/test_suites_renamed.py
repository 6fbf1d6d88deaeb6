"""QuixBugs' training tasks under other names."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.records import Task
from suites.base import Suite, load
from suites.fetch import mirror_directory
from suites.quixbugs.renamed import local_names
from suites.splits import part_of

COPIES = 3


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load(f"quixbugs+renamed:{COPIES}", mirror_directory(None))


@pytest.fixture(scope="module")
def originals() -> dict[str, Task]:
    return {task.id: task for task in load("quixbugs", mirror_directory(None)).tasks()}


def test_each_training_task_has_its_copies_and_no_test_task_has_one(suite: Suite, originals: dict[str, Task]) -> None:
    train = [name for name in originals if part_of(name, list(originals)) == "train"]
    assert sorted(task.id for task in suite.tasks()) == sorted(f"{name}~{n}" for name in train for n in range(COPIES))
    assert {suite.split_of(task) for task in suite.tasks()} == {"train"}
    assert {suite.group_of(task) for task in suite.tasks()} == set(train)


def names_of(task: Task) -> str:
    return "\n".join((task.goal, *task.tree.paths, *task.editable, *task.expected_tests, *task.test_args))


def test_a_copy_does_not_tell_the_name_of_its_original(suite: Suite) -> None:
    for task in suite.tasks():
        original = suite.group_of(task)
        for text in (names_of(task), task.tree.read(task.editable[0]).decode()):
            assert f"def {original}(" not in text
            assert f"/{original}." not in text
            assert f"test_{original}." not in text


def test_copies_differ_from_one_another_and_are_the_same_however_many_there_are(suite: Suite) -> None:
    by_name = {task.id: task for task in suite.tasks()}
    more = {task.id: task for task in load(f"quixbugs+renamed:{COPIES + 2}", mirror_directory(None)).tasks()}
    assert len({task.tree.digest for task in by_name.values()}) == len(by_name)
    assert {name: more[name].tree.digest for name in by_name} == {n: task.tree.digest for n, task in by_name.items()}


def test_no_copy_has_a_name_that_pytest_takes_for_a_test() -> None:
    for task in load("quixbugs+renamed:31", mirror_directory(None)).tasks():
        assert not Path(task.editable[0]).name.startswith("test")


def shape(source: str) -> Sequence[str]:
    return [type(node).__name__ for node in ast.walk(ast.parse(source))]


def test_a_copy_is_the_same_program_and_so_is_its_repair(suite: Suite, originals: dict[str, Task]) -> None:
    whole = load("quixbugs", mirror_directory(None))
    for task in suite.tasks():
        original = originals[suite.group_of(task)]
        repaired, theirs = suite.reference(task), whole.reference(original)
        assert repaired is not None
        assert theirs is not None
        for ours, of in ((task.tree, original.tree), (repaired, theirs)):
            assert shape(ours.read(task.editable[0]).decode()) == shape(of.read(original.editable[0]).decode())


def test_names_that_something_else_has_are_left() -> None:
    source = (
        "import math\ndef f(value, sqrt, other):\n    total = value.other + math.sqrt(1)\n    return g(total=total)\n"
    )
    assert local_names(source) == ["f", "value"]


@pytest.mark.parametrize("part", ["+renamed", "+renamed:0", "+renamed:x", "+renamed:9999", ":gcd"])
def test_another_part_is_refused(part: str) -> None:
    with pytest.raises(UsageError, match="no part"):
        load(f"quixbugs{part}", mirror_directory(None))
