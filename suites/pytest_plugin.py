"""What the pytest fixtures do, imported only when a test asks for repair tasks (see `repo_agent_pytest`)."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import pytest

from harness.environment import Environment
from harness.errors import UsageError
from harness.records import Task, TestPolicy
from sandboxes.base import Isolation, SandboxBackend, SandboxUnavailable
from sandboxes.choose import open_backend
from suites.base import Suite, load
from suites.opening import prepared


def marked_tasks(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Task]:
    """The tasks of a mark, its arguments checked."""
    try:
        inspect.signature(tasks_of).bind(*args, **kwargs)
    except TypeError as error:
        raise pytest.UsageError(f"repo_tasks: {error}") from error
    return tasks_of(*args, **kwargs)


def tasks_of(
    suite: str, split: str | None = None, limit: int | None = None, test_policy: str = "on_write"
) -> list[Task]:
    """The tasks that a mark names: a suite (or suite file), its train or test part, the first few of it."""
    try:
        loaded = load(suite)
        found = list(loaded.tasks())
        if split is not None:
            if split not in ("train", "test"):
                raise UsageError(f"split must be 'train' or 'test', not {split!r}")
            found = [task for task in found if loaded.split_of(task) == split]
        TestPolicy(test_policy)
    except (UsageError, ValueError) as error:
        raise pytest.UsageError(f"repo_tasks: {error}") from error
    return found[:limit]


def backend_of(config: pytest.Config) -> Iterator[SandboxBackend]:
    """The backend that the command line names; no boundary only where `local` is asked for."""
    try:
        backend, _ = open_backend(
            config.getoption("--repo-sandbox"),
            config.getoption("--repo-base-image"),
            isolation=Isolation(config.getoption("--repo-isolation")),
            workers=1,
        )
    except SandboxUnavailable as error:
        raise pytest.UsageError(str(error)) from error
    try:
        yield backend
    finally:
        backend.close()


@cache
def _suite(name: str) -> Suite:
    return load(name)


def environment_of(task: Task, backend: SandboxBackend, test_policy: str) -> Iterator[Environment]:
    """An environment of one task, closed afterwards. The suite that made the task decides of which kind."""
    suite = _suite(task.suite)
    if task.image and backend.name != "docker":
        raise pytest.UsageError(f"{task.id} has an image of its own: it needs --repo-sandbox docker")
    playable, notices = prepared(suite, [task], 1)
    if not playable:
        raise pytest.UsageError(notices[0])
    with suite.environment(task, backend, TestPolicy(test_policy)) as environment:
        yield environment
