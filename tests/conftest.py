"""Real sandboxes for the tests: every backend that this machine has, each opened once."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterator

import docker
import pytest
from hypothesis import HealthCheck, settings

from sandboxes.base import Resources, SandboxBackend, SandboxError
from sandboxes.bubblewrap_sandbox import BubblewrapBackend
from sandboxes.docker_sandbox import DockerBackend
from sandboxes.local_sandbox import LocalBackend
from sandboxes.run_scope import LABEL

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
