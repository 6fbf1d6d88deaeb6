"""Real sandboxes for the tests: every backend that this machine has, each opened once.

And at the end of the session every run that the tests have left is replayed: see `every_trace_is_reproduced`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from hypothesis import HealthCheck, settings

from eval.replay import replay
from harness.errors import UsageError
from harness.records import Trace
from harness.rollout import RolloutLimits
from harness.run_files import RUN_FILE, RunConfig, read_config
from harness.trace_reader import read_traces
from harness.trace_store import TRACES
from sandboxes.base import Resources, SandboxBackend, SandboxError
from sandboxes.bubblewrap_sandbox import BubblewrapBackend
from sandboxes.choose import open_backend
from sandboxes.docker_sandbox import DockerBackend
from sandboxes.local_sandbox import LocalBackend
from sandboxes.run_scope import LABEL
from suites.base import Suite, load_recorded
from suites.fetch import mirror_directory

settings.register_profile("repo-agent", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repo-agent")

RUN_ID = f"test-{uuid.uuid4().hex[:12]}"
BACKENDS = ("local", "bubblewrap", pytest.param("docker", marks=pytest.mark.docker))


def containers(run_id: str) -> list[str]:
    """The ids of all containers of a run, in whatever state."""
    client = docker.from_env()
    try:
        return [each["Id"] for each in client.api.containers(all=True, filters={"label": f"{LABEL}.run={run_id}"})]
    finally:
        client.close()


def gone(run_id: str, within_s: float = 30.0) -> bool:
    """The engine removes containers in the background: wait until it has."""
    deadline = time.monotonic() + within_s
    while containers(run_id):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture(scope="session")
def docker_backend() -> Iterator[DockerBackend]:
    """Docker, or a skip with the reason; where CI requires Docker, a failure."""
    try:
        backend = DockerBackend(run_id=RUN_ID)
    except SandboxError as error:
        if os.environ.get("CI") and os.environ.get("REPO_AGENT_REQUIRE_DOCKER") == "1":
            pytest.fail(f"Docker is required here: {error}")
        pytest.skip(f"no Docker: {error}")
    backend.open(Resources()).close()  # its trial
    yield backend
    all_closed = gone(RUN_ID)
    backend.close()
    assert all_closed, "containers were left by tests that closed their sandboxes"


@pytest.fixture(scope="session")
def bubblewrap_backend() -> BubblewrapBackend:
    if not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed")
    return BubblewrapBackend()


@pytest.fixture(scope="session")
def local_backend() -> Iterator[LocalBackend]:
    backend = LocalBackend()
    yield backend
    backend.close()


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> SandboxBackend:
    """Each backend in turn."""
    found: SandboxBackend = request.getfixturevalue(f"{request.param}_backend")
    return found


NOT_REPLAYABLE = "not-replayable"
"""A file of this name beside a log says that a test has forged or broken it."""


@pytest.fixture(scope="session", autouse=True)
def every_trace_is_reproduced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the tests of this session have recorded is carried out again where it was recorded; the last test fails
    where a step leads elsewhere. Scores are not taken again, and what is recorded twice is replayed once.
    """
    yield
    replayer = _Replayer()
    found = ((Path(folder), set(files)) for folder, _, files in os.walk(tmp_path_factory.getbasetemp()))
    runs = [folder for folder, files in found if {RUN_FILE, TRACES} <= files and NOT_REPLAYABLE not in files]
    with contextlib.closing(replayer):
        told = [line for run in sorted(runs) for line in replayer.differences(run)]
    if told:
        pytest.fail("\n".join(["traces of this session are not reproduced:", *told]), pytrace=False)


class _Replayer:
    def __init__(self) -> None:
        self._backends: dict[tuple[str, str], SandboxBackend] = {}
        self._seen: set[str] = set()

    def differences(self, run: Path) -> list[str]:
        """What is not as it was recorded, line by line."""
        told: list[str] = []
        try:
            config = read_config(run)
            suite = load_recorded(config.suite, config.suite_version, mirror_directory(None))
            for trace in read_traces(run):
                told += [f"{run}: {line}" for line in self._again(config, suite, trace)]
        except (UsageError, SandboxError) as error:
            told.append(f"{run}: {error}")
        return told

    def _again(self, config: RunConfig, suite: Suite, trace: Trace) -> list[str]:
        steps = [(each.completion.text, each.observation, each.digest, each.error, each.loop) for each in trace.steps]
        about = (trace.header.task, trace.header.test_policy, trace.header.prompt, trace.shared, trace.done, steps)
        where = (config.suite_version, config.sandbox, config.isolation, config.max_iters, config.stop_on_loop)
        identity = hashlib.sha256(repr((about, where)).encode()).hexdigest()
        if identity in self._seen:
            return []
        self._seen.add(identity)
        task = next(task for task in suite.tasks() if task.id == trace.header.task)
        with suite.environment(task, self._backend(config), trace.header.test_policy) as environment:
            limits = RolloutLimits(config.max_iters, config.stop_on_loop)
            found = replay(trace, environment, limits, scored=False)
        return found.divergence.lines if found.divergence else [found.fault] if found.fault else []

    def _backend(self, config: RunConfig) -> SandboxBackend:
        key = (config.sandbox, config.isolation)
        if key not in self._backends:
            self._backends[key] = open_backend(config.sandbox, isolation=config.isolation)[0]
        return self._backends[key]

    def close(self) -> None:
        for backend in self._backends.values():
            backend.close()
