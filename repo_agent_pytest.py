"""The pytest entry point. It imports nothing of this project until a test asks for repair tasks, so that a user's own
`suites` or `tools` package is never shadowed or broken by having repo-agent installed.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from harness.environment import Environment
    from harness.records import Task
    from sandboxes.base import SandboxBackend

_MARK = (
    "repo_tasks(suite, split=None, limit=None, test_policy='on_write'): run the test once per repair task of a suite"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("repo-agent")
    group.addoption("--repo-sandbox", default="auto", help="where repair tasks run their tests (see repo-agent eval)")
    group.addoption(
        "--repo-isolation",
        default="container",
        choices=("container", "run"),
        help="what the runs of repair tasks share (see repo-agent eval)",
    )
    group.addoption("--repo-base-image", default="", help="Docker image for repair tasks (REPO_AGENT_BASE_IMAGE)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARK)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    mark = metafunc.definition.get_closest_marker("repo_tasks")
    if mark is None:
        return
    if "repo_task" not in metafunc.fixturenames:
        raise pytest.UsageError(
            f"{metafunc.definition.nodeid}: repo_tasks needs the fixture repo_task or repo_environment"
        )
    tasks = _ours().marked_tasks(mark.args, mark.kwargs)
    metafunc.parametrize("repo_task", tasks, ids=[task.id for task in tasks], indirect=True)


@pytest.fixture
def repo_task(request: pytest.FixtureRequest) -> Task:
    """The repair task of this test (`harness.records.Task`)."""
    if not hasattr(request, "param"):
        raise pytest.UsageError("the fixture repo_task needs the mark repo_tasks(suite=…)")
    task: Task = request.param
    return task


@pytest.fixture(scope="session")
def repo_sandbox(request: pytest.FixtureRequest) -> Iterator[SandboxBackend]:
    """The sandbox backend of the session, chosen by --repo-sandbox."""
    yield from _ours().backend_of(request.config)


@pytest.fixture
def repo_environment(
    request: pytest.FixtureRequest, repo_task: Task, repo_sandbox: SandboxBackend
) -> Iterator[Environment]:
    """A fresh environment of the task: `start`, `step` with a Completion, `score`."""
    mark = request.node.get_closest_marker("repo_tasks")
    yield from _ours().environment_of(repo_task, repo_sandbox, mark.kwargs.get("test_policy", "on_write"))


def _ours() -> Any:
    """`suites.pytest_plugin` of this installation, whatever stands first on the import path."""
    root = str(Path(__file__).resolve().parent)
    path = list(sys.path)
    sys.path.insert(0, root)
    try:
        module = importlib.import_module("suites.pytest_plugin")
    except ImportError as error:
        raise pytest.UsageError(
            f"repo-agent's fixtures cannot be imported beside packages of the same name: {error}"
        ) from error
    finally:
        sys.path[:] = path
    return module
