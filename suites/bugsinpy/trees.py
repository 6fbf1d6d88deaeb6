"""A bug's trees, from the object database of its repository: no work tree, no `git archive` (which leaves files out).

The buggy tree is the fixed commit's, with the part of the patch that is no test taken back, and with the documents as
they were before the fix, for these tell of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from harness.errors import UsageError
from harness.records import Record
from sandboxes.cache_directory import cache_directory
from sandboxes.workspace import File, Mode, PathError, Workspace, clean_path
from suites.bugsinpy.additions import GENERATED
from suites.bugsinpy.bug import Bug
from suites.bugsinpy.paths import is_documentation, is_test_path, patch_paths
from suites.fetch import Entry, git, git_files, listing, why

RECIPE = 2
"""Raised when trees are made otherwise."""


class BugTrees(Record):
    """What a bug's repository says."""

    buggy: str
    """Id of the git tree that an agent gets."""
    repair: tuple[str, ...]
    """The paths that the fix changes; tests, and texts about the project, left out."""
    notes: tuple[str, ...] = ()
    """What had to be done otherwise than for most bugs."""


def bug_trees(repository: Path, bug: Bug) -> BugTrees:
    """Make the buggy tree in the object database of the bug's repository.

    Raises:
        UsageError: git refuses; the message names the bug.
    """
    with tempfile.TemporaryDirectory() as scratch:
        index = _Index(repository, Path(scratch) / "index", bug.id)
        index.run("read-tree", bug.fixed_commit)
        fixed = listing(repository, bug.fixed_commit)
        before = listing(repository, bug.buggy_commit)
        repair = tuple(path for path in patch_paths(bug.patch) if not is_test_path(path) and not _tells(path))
        notes = [] if index.take_back(bug.patch, repair) else ["the patch does not reverse: files of the buggy commit"]
        taken = repair if notes else ()
        documents = [path for path in {*fixed, *before} if _tells(path)]
        changed = [path for path in documents if fixed.get(path) != before.get(path)]
        index.set_entries({path: before.get(path) for path in [*taken, *changed]})
        added = dict.fromkeys(bug.touched, b"") | GENERATED.get(bug.repository.lower(), {})
        index.set_entries({path: index.entry(content) for path, content in added.items() if path not in fixed})
        buggy = index.run("write-tree", "--missing-ok").strip()
        return BugTrees(buggy=buggy, repair=repair, notes=tuple(notes))


def read_trees(bug: Bug) -> BugTrees | None:
    """What `write_trees` kept of the same bug, on this machine."""
    try:
        return BugTrees.model_validate_json(_file_of(bug).read_bytes())
    except (OSError, ValidationError):
        return None


def write_trees(bug: Bug, trees: BugTrees) -> BugTrees:
    """Keep what was found; a disk that refuses is no fault here, for it can be found again."""
    with contextlib.suppress(OSError):
        file = _file_of(bug)
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = file.with_suffix(f".{uuid.uuid4().hex}")
        scratch.write_text(trees.model_dump_json(), encoding="utf-8")
        scratch.replace(file)
    return trees


def _file_of(bug: Bug) -> Path:
    made_from = [RECIPE, bug.repository, bug.fixed_commit, bug.buggy_commit, bug.touched, bug.patch.hex()]
    name = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
    return cache_directory() / "bugsinpy" / "trees" / f"{name[:32]}.json"


@dataclass(frozen=True)
class _Index:
    """A git index of our own."""

    repository: Path
    file: Path
    bug: str

    def run(self, *arguments: str, stdin: bytes | None = None) -> str:
        done = git(self.repository, *arguments, stdin=stdin, index=self.file)
        if done.returncode:
            raise UsageError(f"{self.bug}: git {arguments[0]} refuses ({why(done)})")
        return done.stdout.decode()

    def take_back(self, patch: bytes, paths: tuple[str, ...]) -> bool:
        """Reverse the part of a patch that touches these paths; False where it does not fit."""
        if not paths:  # git would take it for all of them
            return True
        included = [f"--include={_literal(path)}" for path in paths]
        arguments = ("apply", "-R", "--cached", "--whitespace=nowarn", *included)
        return not git(self.repository, *arguments, stdin=patch, index=self.file).returncode

    def set_entries(self, entries: Mapping[str, Entry | None]) -> None:
        lines = [
            f"{entry.mode} {entry.blob}\t{path}\0" if entry else f"0 {'0' * 40}\t{path}\0"
            for path, entry in entries.items()
        ]
        if lines:
            text = "".join(lines).encode(errors="surrogateescape")
            self.run("update-index", "-z", "--index-info", stdin=text)

    def entry(self, content: bytes) -> Entry:
        return Entry(Mode.REGULAR, self.run("hash-object", "-w", "--stdin", stdin=content).strip())


def _literal(path: str) -> str:
    """A pattern that matches just this path."""
    return "".join("\\" + letter if letter in "*?[\\" else letter for letter in path)


def tree_files(repository: Path, tree: str) -> list[tuple[str, File]]:
    """The files of a tree that a sandbox and an agent can be given: a name that cannot be shown is left out."""
    return [(path, file) for path, file in git_files(repository, tree, _can_be_named).items()]


def _tells(path: str) -> bool:
    """A text about the project, which may describe the fix; examples that tests run are none."""
    return is_documentation(path) and not is_test_path(path) and not path.endswith(".py")


def _can_be_named(path: str) -> bool:
    try:
        return clean_path(path) == path
    except (PathError, UnicodeEncodeError):
        return False


def repaired(repository: Path, bug: Bug, trees: BugTrees, tree: Workspace) -> Workspace:
    """The bug's tree with the fixed commit's files where the fix changed something.

    Raises:
        UsageError: it cannot be told as edits of files; the message names the bug.
    """
    fixed = git_files(repository, bug.fixed_commit, set(trees.repair).__contains__)
    for path in sorted(trees.repair, key=fixed.__contains__):  # removals first: a file may become a folder
        try:
            if path in fixed:
                tree = tree.write(path, fixed[path].content)
            elif path in tree:
                tree = tree.remove(path)
        except PathError as error:
            raise UsageError(f"{bug.id}: the repair cannot be made: {error}") from error
    return tree
