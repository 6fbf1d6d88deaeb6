"""QuixBugs: 40 one-fault programs with tests, from upstream at a pinned commit.

The agent's tree holds one program, its tests and what these read, and a test configuration of ours instead of
upstream's, whose `--correct` switch chooses the references. References, Java sources and history are in no tree.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from harness.errors import UsageError
from harness.records import Task
from sandboxes.base import Limits
from sandboxes.workspace import File, MappingTree, Workspace
from suites.base import RepoSuite
from suites.fetch import git_files, git_repository

UPSTREAM = "jkoppel/QuixBugs"
COMMIT = "4257f44b0ff1181dedaedee6a447e133219fcebf"
COUNT = 40
PROGRAMS, REFERENCES, TESTS, DATA = "python_programs", "correct_python_programs", "python_testcases", "json_testcases"
TEST_CPU_S = 5.0
"""CPU seconds of one test; the slowest reference test (levenshtein) takes 2."""
SLOW = {"levenshtein": 5.0, "knapsack": 4.0}
"""Feedback limit per test, in CPU seconds, where the default is too tight for a right program."""


@dataclass
class QuixbugsSuite(RepoSuite):
    """The 40 tasks; upstream is fetched when they are first asked for."""

    mirror: Path | None = None
    name = "quixbugs"
    version = COMMIT

    @cached_property
    def _files(self) -> dict[str, File]:
        repository = git_repository(UPSTREAM, [COMMIT], self.mirror)
        return git_files(repository, COMMIT, _is_python_side)

    @cached_property
    def _expected(self) -> dict[str, list[str]]:
        text = (files("suites.quixbugs") / "expected_tests.json").read_text(encoding="utf-8")
        expected: dict[str, list[str]] = json.loads(text)
        return expected

    def tasks(self) -> Sequence[Task]:
        return self._tasks

    @cached_property
    def _tasks(self) -> list[Task]:
        head, tail = f"{TESTS}/test_", ".py"
        names = [path[len(head) : -len(tail)] for path in sorted(self._files) if path.startswith(head)]
        if len(names) != COUNT:
            raise UsageError(f"{UPSTREAM} at {COMMIT} has {len(names)} test files instead of {COUNT}")
        return [self._task(name) for name in names]

    def _task(self, name: str) -> Task:
        goal = (files("suites.quixbugs") / "goal.md").read_text(encoding="utf-8").strip()
        return Task(
            id=name,
            suite=self.name,
            goal=goal.replace("{name}", name),
            tree=Workspace(MappingTree(self._tree(name))),
            editable=(f"{PROGRAMS}/{name}.py",),
            expected_tests=tuple(self._expected.get(name, ())),
            test_args=(f"{TESTS}/test_{name}.py",),
            test_cpu_s=TEST_CPU_S,
            feedback_cpu_s=SLOW.get(name, 1.0),
            limits=Limits(cpu_s=120, wall_s=300),
        )

    def _tree(self, name: str) -> dict[str, File | bytes]:
        test = f"{TESTS}/test_{name}.py"
        imports = self._files[test].content.decode()
        paths = [f"{PROGRAMS}/{name}.py", test]
        paths += [f"{TESTS}/node.py"] if "from node import" in imports else []
        if "load_testdata" in imports:
            paths += [f"{TESTS}/load_testdata.py", f"{DATA}/{name}.json"]
        configuration = (files("suites.quixbugs") / "conftest.py.txt").read_bytes()
        return {path: self._files[path] for path in paths} | {"conftest.py": configuration}

    def reference(self, task: Task) -> Workspace:
        """The tree with upstream's repair; the text about the function stays as it is in the tree."""
        path = f"{PROGRAMS}/{task.id}.py"
        repaired = _code_and_text(self._files[f"{REFERENCES}/{task.id}.py"].content.decode())[0]
        return task.tree.write(path, (repaired + _code_and_text(task.tree.read(path).decode())[1]).encode())


def _code_and_text(source: str) -> tuple[str, str]:
    """A program, and the strings that stand behind its code: what it is for, and for references other repairs too."""
    last = [node for node in ast.parse(source).body if not _is_text(node)][-1]
    lines = source.splitlines(keepends=True)
    return "".join(lines[: last.end_lineno]).rstrip("\n") + "\n", "".join(lines[last.end_lineno :])


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_python_side(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return folder in (PROGRAMS, REFERENCES, TESTS, DATA) and name.endswith((".py", ".json"))
