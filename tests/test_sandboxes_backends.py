"""What is special to a backend: who owns its containers and files, how it is chosen, where its images come from. What
every backend must do is asked by the conformance suite (test_sandboxes_conformance.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import docker
import pytest

from sandboxes.base import ExecResult, Resources, Sandbox, SandboxBackend, SandboxError, SandboxUnavailable
from sandboxes.bubblewrap_sandbox import BubblewrapBackend
from sandboxes.choose import NO_BOUNDARY, open_backend
from sandboxes.conformance.checking import outcomes, pytest_run, sh, tree_of
from sandboxes.docker_sandbox import DockerBackend
from sandboxes.local_sandbox import LocalBackend
from sandboxes.run_scope import LABEL
from tests.conftest import RUN_ID, containers, gone

# ---- lives and deaths


@pytest.mark.docker
def test_containers_carry_labels_and_are_gone_after_close(docker_backend: DockerBackend) -> None:
    before = set(containers(RUN_ID))
    with docker_backend.open(Resources()) as sandbox:
        (mine,) = set(containers(RUN_ID)) - before
        client = docker.from_env()
        labels = client.containers.get(mine).labels
        client.close()
        assert (labels[LABEL], labels[f"{LABEL}.run"]) == ("sandbox", RUN_ID)
        assert f":{os.getpid()}:" in labels[f"{LABEL}.owner"]
        assert float(labels[f"{LABEL}.expires"]) > time.time() + 3600
        assert sh(sandbox, "echo hello").output == "hello\n"
    deadline = time.monotonic() + 30
    while mine in containers(RUN_ID) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert mine not in containers(RUN_ID)


OWNER = """
import sys
from sandboxes.base import Command, Resources
from sandboxes.docker_sandbox import DockerBackend
from sandboxes.workspace import MappingTree, Workspace
backend = DockerBackend(run_id=sys.argv[1])
idle, busy = backend.open(Resources()), backend.open(Resources())
print("ready", flush=True)
busy.run(Workspace(MappingTree({})), Command(("sleep", "1000")))
"""


@pytest.mark.docker
@pytest.mark.usefixtures("docker_backend")
def test_containers_are_gone_after_their_owner_was_killed() -> None:
    run_id = f"{RUN_ID}-killed"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, run_id], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout
        assert owner.stdout.readline() == "ready\n"
        assert len(containers(run_id)) == 2
        time.sleep(0.5)  # the second one is in its run
    finally:
        owner.kill()
        owner.communicate()
    assert gone(run_id)


def in_thread(function: Callable[[], ExecResult]) -> Future[ExecResult]:
    """Like an executor's `submit`, in a thread that nothing waits for."""
    result: Future[ExecResult] = Future()

    def run() -> None:
        try:
            result.set_result(function())
        except Exception as error:  # noqa: BLE001
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return result


def started(sandbox: Sandbox) -> Future[ExecResult]:
    """A run that would take long, and has begun."""
    running = in_thread(lambda: sh(sandbox, "sleep 1000"))
    time.sleep(0.5)
    assert not running.done()
    return running


def children(pid: int) -> list[int]:
    """The processes that the threads of a process started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread may end while it is looked at
            found += map(int, (task / "children").read_text().split())
    return found


def test_loss_of_the_guest_during_a_run_is_a_sandbox_error(backend: SandboxBackend) -> None:
    backend.open(Resources()).close()  # its reaper is there now
    containers_before = set(containers(RUN_ID)) if backend.name == "docker" else set()
    children_before = set(children(os.getpid()))
    with backend.open(Resources()) as sandbox:
        running = started(sandbox)
        if backend.name == "docker":
            (mine,) = set(containers(RUN_ID)) - containers_before
            subprocess.run(["docker", "kill", mine], check=True, capture_output=True)
        else:
            (guest,) = set(children(os.getpid())) - children_before
            os.kill(guest, signal.SIGKILL)
        assert isinstance(running.exception(timeout=60), SandboxError)


def test_target_that_kills_its_runner_is_a_sandbox_error_where_nothing_hinders_it(local_backend: LocalBackend) -> None:
    with local_backend.open(Resources()) as sandbox, pytest.raises(SandboxError):
        sh(sandbox, "kill -9 $PPID; sleep 1000")


def test_local_sandbox_leaves_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    backend = LocalBackend()
    with backend.open(Resources()) as sandbox:
        assert list(tmp_path.iterdir())
        sh(sandbox, "mkdir -p a/b; touch a/b/c; chmod 0 a/b", tree=tree_of({"c/d.py": ""}))
    backend.close()
    assert not list(tmp_path.iterdir())


# ---- which backend is taken


# ---- which backend is taken


def test_automatic_choice_falls_to_bubblewrap_without_an_engine(
    bubblewrap_backend: BubblewrapBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    backend, notices = open_backend("auto")
    backend.close()
    assert backend.name == bubblewrap_backend.name
    assert notices[0].startswith("sandbox docker passed over: no Docker engine answers")


def test_automatic_choice_reaches_local_only_for_trusted_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    monkeypatch.setenv("PATH", "/nowhere")
    backend, notices = open_backend("auto", trusted=True)
    backend.close()
    assert backend.name == "local"
    assert notices[-1] == NO_BOUNDARY
    with pytest.raises(SandboxUnavailable, match="--sandbox local"):
        open_backend("auto")


def test_named_docker_without_an_engine_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    with pytest.raises(SandboxUnavailable, match="no Docker engine answers"):
        open_backend("docker")


@pytest.mark.docker
@pytest.mark.usefixtures("docker_backend")
def test_automatic_choice_passes_over_an_engine_without_an_image(
    bubblewrap_backend: BubblewrapBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, notices = open_backend("auto", base_image="127.0.0.1:9/no-such-image:none")
    backend.close()
    assert backend.name == bubblewrap_backend.name
    assert "has no image 127.0.0.1:9/no-such-image:none" in notices[0]


# ---- images

UNPYTEST = (
    "rm -rf /usr/lib/python3/dist-packages/*pytest* && "
    "python3 -m venv /v && cp -r /v/lib/python3*/site-packages/pip /usr/lib/python3/dist-packages/ && rm -rf /v"
)


@pytest.mark.slow
@pytest.mark.docker
def test_image_without_pytest_gets_a_derived_one_once(docker_backend: DockerBackend) -> None:
    base, derived = f"repo-agent-test-nopytest:{RUN_ID}", set[str]()
    client = docker.from_env()

    def made() -> set[str]:
        return {image.id for image in client.images.list("repo-agent-pytest") if image.id}

    before = made()
    container = client.containers.create(
        os.environ.get("REPO_AGENT_BASE_IMAGE", "python:3.11-slim"),
        ["sh", "-c", UNPYTEST],
        labels={f"{LABEL}.run": RUN_ID},
    )
    try:
        container.start()
        assert container.wait()["StatusCode"] == 0, container.logs()
        container.commit("repo-agent-test-nopytest", RUN_ID)
        for _ in range(2):
            with docker_backend.open(Resources(), base) as sandbox:
                assert outcomes(pytest_run(sandbox, {"test_it.py": "def test_it(): pass"})) == {"test_it": "passed"}
        derived = made() - before
        (image,) = derived
        assert client.containers.run(image, ["ls", "-A", "/tmp"], remove=True) == b""
        found = client.images.get(image)
        attributes = json.dumps([found.attrs, found.history()])
        for word in ("PIP_", "SSL_CERT", "PROXY", "CA_BUNDLE", socket.gethostname()):
            assert word not in attributes
        again = DockerBackend(base)
        assert made() - before == derived
        again.close()
    finally:
        container.remove(force=True)
        for name in (*derived, base):
            client.images.remove(name, force=True)
        client.close()
