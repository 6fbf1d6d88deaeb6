"""minibugs: small repair tasks written for this project, embedded in the package.

Each task is a directory: `task.toml`, the tree before (`before/`), and the files that the reference changes (`fix/`).
"""

from __future__ import annotations

import ast
import hashlib
import tomllib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from harness.records import Task
from sandboxes.base import Limits
from sandboxes.workspace import DirectoryTree, Workspace
from suites.base import RepoSuite

TASKS = Path(__file__).parent / "tasks"


class MinibugsSuite(RepoSuite):
    """The embedded suite."""

    name = "minibugs"

    @cached_property
    def version(self) -> str:
        return hashlib.sha256("".join(task.tree.digest for task in self.tasks()).encode()).hexdigest()[:12]

    def tasks(self) -> Sequence[Task]:
        return self._tasks

    @cached_property
    def _tasks(self) -> list[Task]:
        return [_task(folder) for folder in sorted(TASKS.iterdir()) if (folder / "task.toml").is_file()]

    def reference(self, task: Task) -> Workspace:
        fix = DirectoryTree(TASKS / task.id / "fix")
        tree = task.tree
        for path in fix.paths:
            tree = tree.write(path, fix.file(path).content)
        return tree


def _task(folder: Path) -> Task:
    settings = tomllib.loads((folder / "task.toml").read_text(encoding="utf-8"))
    tree = DirectoryTree(folder / "before", skip=frozenset({"__pycache__", ".pytest_cache"}))
    return Task(
        id=folder.name,
        suite=MinibugsSuite.name,
        goal=f"{settings['title']}. {' '.join(settings['goal'].split())}",
        tree=Workspace(tree),
        editable=tuple(settings["editable"]),
        expected_tests=_test_ids(tree),
        test_args=("tests",),
        test_cpu_s=2.0,
        feedback_cpu_s=0.5,
        limits=Limits(cpu_s=30, wall_s=120),
        extra={"kinds": ",".join(settings["kinds"]), "edits": str(settings["edits"])},
    )


def _test_ids(tree: DirectoryTree) -> tuple[str, ...]:
    """The ids of the tests, read from their sources: plain functions and methods, none is parametrised."""
    ids: list[str] = []
    for path in tree.paths:
        if path.startswith("tests/test_") and path.endswith(".py"):
            ids += [f"{path}::{name}" for name in _test_names(ast.parse(tree.file(path).content))]
    return tuple(ids)


def _test_names(module: ast.Module) -> list[str]:
    names: list[str] = []
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            names.append(node.name)
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            methods = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
            names += [f"{node.name}::{name}" for name in methods if name.startswith("test")]
    return names
