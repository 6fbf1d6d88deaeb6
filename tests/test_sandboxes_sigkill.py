"""SIGKILL of the whole harness at any moment: ten seconds later nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest

from sandboxes import leftovers
from sandboxes.base import SandboxUnavailable
from sandboxes.run_scope import LABEL, owner_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="follows the processes of a run by PR_SET_CHILD_SUBREAPER"),
]
ROOT = Path(__file__).parent.parent
WITHIN_S = 10.0
EVAL = "eval --suite minibugs --llm-provider reference --num-workers 2 --rollouts 100 --no-verdict-cache".split()

NANNY = """
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: every process of the harness ends up here, and nothing else
harness = subprocess.Popen(sys.argv[1:], stdout=2)
print(harness.pid, flush=True)
print(harness.wait(), flush=True)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""

FRONT_DOOR = "import sys, repo_agent; sys.exit(repo_agent.main(sys.argv[1:]))"
DIES_BEFORE_THE_FIFTH_START = """
import http.client, os, signal
ask, asked = http.client.HTTPConnection.putrequest, []
def putrequest(connection, method, url, *args, **kwargs):
    if method == "POST" and url.partition("?")[0].endswith("/start"):
        asked.append(url)
        if len(asked) == 5:
            os.kill(os.getpid(), signal.SIGKILL)
    return ask(connection, method, url, *args, **kwargs)
http.client.HTTPConnection.putrequest = putrequest
"""


@dataclass(frozen=True)
class Moment:
    """So long after the start of the process, or after its rollouts began."""

    delay_s: float
    in_rollouts: bool


_random = random.Random(3)
EARLY = [Moment(_random.uniform(0.2, 2.0), in_rollouts=False) for _ in range(4)]
LATE = [Moment(_random.uniform(0.0, 5.0), in_rollouts=True) for _ in range(16)]


class Harness:
    """A `repo-agent eval` under way, with temporary files in a place of its own."""

    def __init__(self, folder: Path, sandbox: str, code: str) -> None:
        self.folder, self.temporary = folder, folder / "tmp"
        self.temporary.mkdir(parents=True)
        flags = [*EVAL, "--sandbox", sandbox, "--trace-dir", str(folder / "traces")]
        environment = {**os.environ, "TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT)}
        with open(folder / "log", "wb") as log:
            self.nanny = subprocess.Popen(
                [sys.executable, "-c", NANNY, sys.executable, "-c", code, *flags],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.nanny.stdout
        self.pid = int(self.nanny.stdout.readline())
        self.owner = owner_of(self.pid)

    def wait_for_rollouts(self) -> None:
        deadline = time.monotonic() + 60
        while not (self.folder / "traces").exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    def exit_code(self) -> int:
        """Waits for its end."""
        assert self.nanny.stdout
        return int(self.nanny.stdout.readline())

    def left(self, client: docker.DockerClient | None) -> list[str]:
        """What there is outside the harness that would not be there without it."""
        found = [f"process {command_of(pid)}" for pid in children(self.nanny.pid)]
        found += [f"file {path}" for path in self.temporary.iterdir()]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        found += [f"mount {mount}" for mount in mounts if str(self.folder) in mount]
        things = leftovers.find(client) if client else []
        return found + [f"{item.form} {item.id} {item.state}" for item in things if item.owner == self.owner]

    def left_at_last(self, client: docker.DockerClient | None) -> list[str]:
        deadline = time.monotonic() + WITHIN_S
        while found := self.left(client):
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return found

    def close(self) -> None:
        """Whatever the test has found, it leaves no process."""
        while below := children(self.nanny.pid):
            for pid in below:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        self.nanny.wait()
        assert self.nanny.stdout
        self.nanny.stdout.close()


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def command_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:200]
    return str(pid)


@contextlib.contextmanager
def harness(folder: Path, sandbox: str, code: str = FRONT_DOOR) -> Iterator[Harness]:
    started = Harness(folder, sandbox, code)
    try:
        yield started
    finally:
        started.close()


def left_after(folder: Path, sandbox: str, moment: Moment, client: docker.DockerClient | None) -> list[str]:
    """What is left ten seconds after a SIGKILL at that moment."""
    with harness(folder / uuid.uuid4().hex, sandbox) as running:
        if moment.in_rollouts:
            running.wait_for_rollouts()
        time.sleep(moment.delay_s)
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, signal.SIGKILL)
        if running.exit_code() != -signal.SIGKILL:
            return [f"the run had ended: {(running.folder / 'log').read_text()[-500:]}"]
        return running.left_at_last(client)


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(leftovers.engine())
        except SandboxUnavailable as error:
            if os.environ.get("CI") and os.environ.get("REPO_AGENT_REQUIRE_DOCKER") == "1":
                pytest.fail(f"Docker is required here: {error}")
            pytest.skip(f"no Docker: {error}")
        yield found


@pytest.mark.docker
def test_nothing_of_a_harness_with_docker_is_left_after_sigkill(tmp_path: Path, client: docker.DockerClient) -> None:
    moments = [*EARLY, *LATE]
    with ThreadPoolExecutor(2) as both:  # each is the other's load
        left = both.map(lambda moment: left_after(tmp_path, "docker", moment, client), moments)
        assert dict(zip(moments, left, strict=True)) == {moment: [] for moment in moments}


@pytest.mark.parametrize("sandbox", ["bubblewrap", "local"])
def test_nothing_of_a_harness_without_docker_is_left_after_sigkill(tmp_path: Path, sandbox: str) -> None:
    if sandbox == "bubblewrap" and not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed")
    moments = [*EARLY[:2], *LATE[:3]]
    assert {moment: left_after(tmp_path, sandbox, moment, None) for moment in moments} == {
        moment: [] for moment in moments
    }


@pytest.mark.docker
def test_container_that_was_created_and_not_yet_started_is_not_left(
    tmp_path: Path, client: docker.DockerClient
) -> None:
    since = int(time.time())
    with harness(tmp_path, "docker", DIES_BEFORE_THE_FIFTH_START + FRONT_DOOR) as running:
        assert running.exit_code() == -signal.SIGKILL, (tmp_path / "log").read_text()[-500:]
        assert running.left_at_last(client) == []
        happened = engine_events(client, running.owner, since)
    created, started, destroyed = (
        {container for container, action in happened if action == wanted} for wanted in ("create", "start", "destroy")
    )
    assert created - started
    assert created == destroyed


def engine_events(client: docker.DockerClient, owner: str, since: int) -> set[tuple[str, str]]:
    """(container, what happened to it) for all containers of an owner."""
    filters = {"type": "container", "label": f"{LABEL}.owner={owner}"}
    events = client.api.events(since=since, until=int(time.time()) + 1, filters=filters, decode=True)
    return {(event["Actor"]["ID"], event["Action"]) for event in events}
