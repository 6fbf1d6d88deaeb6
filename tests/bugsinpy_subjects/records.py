"""How the subjects of the small BugsInPy world are written down: a history as changes, and bugs as names of commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal[
    "reproduced",
    "flaky",
    "needs_latin1",
    "needs_network",
    "buggy_passes",
    "fixed_fails",
    "unreadable",
    "compiles",
    "no_environment",
    "no_repository",
]
"""As the states of suites/bugsinpy/status.py, and one for a subject that the mirror does not have."""
Tree = dict[str, tuple[str, bytes]]
"""Path to git's mode and the content."""


@dataclass(frozen=True)
class Edit:
    """One place of a file, which must occur exactly once, replaced."""

    old: str
    new: str


@dataclass(frozen=True)
class Added:
    """Text at the end of a file."""

    text: str


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class Script:
    """A file with the executable bit."""

    text: str


Change = str | Edit | Added | Link | Script
"""A string is the whole new content."""


@dataclass(frozen=True)
class Commit:
    """One commit of a history that is told oldest first."""

    name: str
    """How bugs and other commits refer to it."""
    message: str
    changes: Mapping[str, Change]
    parent: str | None = None
    """Where it is not the commit told before: the root of a side branch."""
    merges: str | None = None
    """The tip of a side branch; the changes are then those of that branch again."""


@dataclass(frozen=True)
class SubjectBug:
    """A bug directory to be written, and what must come out of it."""

    number: int
    python: str
    buggy: str
    fixed: str
    run: str
    """run_test.sh"""
    test_file: str
    patch_paths: Sequence[str]
    """What `git diff` is restricted to, as upstream restricted it to sources (mostly)."""
    state: State
    irregular: Sequence[str]
    requirements: bytes | None = None
    setup: str | None = None
    patch_of: tuple[str, str] | None = None
    """The two commits that the patch is the difference of, where they are others."""
    abbreviated: bool = False
    """The buggy commit is given by 7 digits."""
    info: str = 'python_version="{python}"\nbuggy_commit_id="{buggy}"\nfixed_commit_id="{fixed}"\ntest_file="{tests}"\n'
    failing: Sequence[str] = ()
    """Test ids that fail on the buggy tree and pass on the fixed one."""
    passing: Sequence[str] = ()
    """Test ids that pass on both trees."""
    flaky: Sequence[str] = ()
    """Test ids of which every run of the fixed tree passes one, drawn by chance."""


@dataclass(frozen=True)
class Subject:
    """A repository with its bugs."""

    project: str
    history: Sequence[Commit]
    bugs: Sequence[SubjectBug]
    info: str
    """project.info"""


def trees(history: Sequence[Commit]) -> dict[str, Tree]:
    """The whole tree of every commit."""
    known: dict[str, Tree] = {}
    before: str | None = None
    for commit in history:
        parent = commit.parent or before
        tree = dict(known[parent]) if parent else {}
        for path, change in commit.changes.items():
            tree[path] = _changed(tree.get(path), change)
        known[commit.name] = tree
        before = commit.name
    return known


def _changed(file: tuple[str, bytes] | None, change: Change) -> tuple[str, bytes]:
    match change:
        case str():
            return "100644", change.encode()
        case Script(text):
            return "100755", text.encode()
        case Link(target):
            return "120000", target.encode()
    assert file is not None, f"nothing to change: {change}"
    mode, content = file
    if isinstance(change, Added):
        return mode, content + change.text.encode()
    assert content.count(change.old.encode()) == 1, f"not there exactly once: {change.old!r}"
    return mode, content.replace(change.old.encode(), change.new.encode())
