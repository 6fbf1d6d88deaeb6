"""Where hostile programs run: a sandbox, a tree that they may spoil, and a witness of what the next run finds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sandboxes.base import Command, ExecResult, Isolation, Limits, PytestRun, Resources
from sandboxes.bubblewrap_sandbox import BubblewrapBackend
from sandboxes.docker_sandbox import DockerBackend
from sandboxes.guest_sandbox import GuestSandbox
from sandboxes.workspace import File, MappingTree, Mode, Workspace
from tests.conftest import RUN_ID

SMALL = Resources(memory_bytes=256 * 2**20, pids=64, disk_bytes=32 * 2**20)
SHORT = Limits(wall_s=0.5, output_bytes=10_000)
LONG = Limits(wall_s=60, output_bytes=1_000_000)
SECRET = "from-the-host-" + RUN_ID


def without_namespaces(run_id: str) -> DockerBackend:
    """Isolation run on an engine that refuses namespaces."""
    backend = DockerBackend(run_id=run_id, isolation=Isolation.RUN)
    backend.open(Resources()).close()  # its trial, which has them
    backend._refused = True
    return backend


BACKENDS: dict[str, Callable[[str], DockerBackend | BubblewrapBackend]] = {
    "docker-container": lambda run_id: DockerBackend(run_id=run_id),
    "docker-run": lambda run_id: DockerBackend(run_id=run_id, isolation=Isolation.RUN),
    "docker-run-users": without_namespaces,
    "bubblewrap": lambda run_id: BubblewrapBackend(),
}
FAST = ("docker-container", "docker-run")


def marked(kind: str) -> object:
    marks = [pytest.mark.docker] if kind.startswith("docker") else []
    return pytest.param(kind, marks=marks + ([] if kind in FAST else [pytest.mark.slow]))


KINDS = [marked(kind) for kind in BACKENDS]
"""Parameters of a fixture for `arena_of`."""

GROUND_TESTS = """
import random, socket, subprocess, sys, threading
import pytest
from pkg.value import VALUE

def test_value():
    assert VALUE == "true"

def test_fails():
    assert [1, 2] == [1, 3]

@pytest.mark.skip
def test_skipped():
    pass

def test_process_is_as_new():
    assert random.random() == 0.8444218515250481
    assert len([1, 2]) == 2 and isinstance(1, int) and socket.getdefaulttimeout() is None

def test_server():
    with socket.create_server(("127.0.0.1", 8766)) as server:
        with socket.create_connection(server.getsockname()) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))  # leaves no port

def test_abstract_socket():
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\\0left-by-a-run")

def test_child():
    assert subprocess.check_output([sys.executable, "-c", "from pkg.value import VALUE; print(VALUE)"]) == b"true\\n"

def test_files(tmp_path):
    assert str(tmp_path) == "/tmp/pytest-of-nobody/pytest-0/test_files0"

def test_thread():
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
"""
GROUND = Workspace(
    MappingTree(
        {
            "pkg/__init__.py": b"",
            "pkg/value.py": b"VALUE = 'true'\n",
            "pkg/deep/data.txt": b"data\n",
            "run.sh": File(b"#!/bin/sh\necho ran\n", Mode.EXECUTABLE),
            "link": File(b"pkg/deep/data.txt", Mode.SYMLINK),
            "tests/test_ground.py": GROUND_TESTS.encode(),
        }
    )
)

WITNESS = r"""
import glob, json, os, resource, socket, stat, sys, time
def listing():
    for folder, folders, names in os.walk("."):
        for name in folders + names:
            path = os.path.join(folder, name)
            found = os.lstat(path)
            content = os.readlink(path) if os.path.islink(path) else open(path).read() if name in names else ""
            links = 0 if stat.S_ISDIR(found.st_mode) else found.st_nlink
            yield path, oct(found.st_mode), links, content, os.listxattr(path, follow_symlinks=False)
def under(place):
    return sorted(os.listdir(place)) if os.access(place, os.R_OK) else []
def room(place):
    found = os.statvfs(place)
    return found.f_bavail, found.f_ffree
def lines(pattern):
    return {path: len(open(path).readlines()) for path in glob.glob(pattern)}
status = dict(line.split(":\t") for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
print(json.dumps({
    "tree": sorted(listing()),
    "tops": [(oct(os.stat(place).st_mode), os.listxattr(place)) for place in (".", "/tmp", "/dev/shm")],
    "places": [under(place) for place in ("/tmp", "/dev/shm", "/dev/mqueue", "/var/tmp", "/run/lock", "/dev/pts")],
    "room": [room(place) for place in (".", "/tmp", "/dev/shm")],
    "processes": sum(name.isdigit() for name in os.listdir("/proc")),
    "system v": lines("/proc/sysvipc/*"),
    "sockets": [lines("/proc/net/" + name) for name in ("tcp", "tcp6", "udp", "udp6", "unix")],
    "environment": dict(os.environ),
    "python": [sys.path, sorted(sys.modules)],
    "limits": [resource.getrlimit(number) for number in range(16)],
    "status": [status.get(key) for key in ("Umask", "SigBlk", "SigIgn", "ShdPnd", "CapEff", "Seccomp", "Cpus_allowed")],
    "priority": [os.nice(0), os.sched_getscheduler(0), open("/proc/self/oom_score_adj").read()],
    "personality": open("/proc/self/personality").read(),
    "descriptors": sorted(os.listdir("/proc/self/fd")),
    "clock": [time.tzname, abs(time.time() - float(sys.argv[1])) < 60, socket.gethostname()],
}))
"""


class Arena:
    """One sandbox after another of one kind. Each attack runs where all those before it ran."""

    def __init__(self, kind: str, backend: DockerBackend | BubblewrapBackend) -> None:
        self.kind, self.backend = kind, backend
        self.sandbox: GuestSandbox = backend.open(SMALL)
        self.at_first = self.witness()

    @property
    def is_docker(self) -> bool:
        return self.kind != "bubblewrap"

    def ready(self) -> None:
        """A new sandbox, where an attack broke the last one: that is for its own test to say."""
        if self.sandbox.doubt:
            self.renew()

    def renew(self) -> None:
        self.sandbox.close()
        self.sandbox = self.backend.open(SMALL)

    def needs(self, promise: str) -> None:
        """Skip what the backend declares that it cannot do; nothing is run then."""
        if not getattr(self.backend.promises, promise):
            pytest.skip(f"{self.kind} does not promise {promise}")

    # ---- attacks, all on the same tree

    def run(self, program: str, *args: str, limits: Limits = LONG) -> ExecResult:
        return self.sandbox.run(GROUND, Command(("python3", "-c", program, *args), limits=limits))

    def run_test(self, module: str, limits: Limits = LONG, scoring: bool = False) -> ExecResult:
        """The module as tests/test_attack.py under pytest, in a process forked from the runner's."""
        tree = GROUND.write("tests/test_attack.py", module.encode())
        return self.sandbox.run(tree, Command(PytestRun(("tests/test_attack.py",), scoring=scoring), limits=limits))

    def refusals(self, program: str, *args: str) -> dict[str, str]:
        """Run a program that tries several things; each must have been refused: name -> errno."""
        result = self.run(program, *args)
        assert result.exit_code == 0, result.output
        said = json.loads(result.output)
        assert not said["worked"], f"worked: {said['worked']}"
        meant = {"EPERM", "EACCES", "EROFS", "ENOSYS", "ENOENT", "ENXIO", "ESRCH", "ENODEV", "ENOTSUP"}
        meant |= set() if self.is_docker else {"EINVAL"}  # so it is with a user that has no number inside
        refused: dict[str, str] = said["refused"]
        unclear = {name: why for name, why in refused.items() if why not in meant}
        assert not unclear, f"failed for another reason: {unclear}"
        return refused

    # ---- the run after

    def witness(self) -> dict[str, Any]:
        """What a program and what pytest find on the same tree."""
        seen = self.sandbox.run(GROUND, Command(("python3", "-c", WITNESS, str(time.time()))))
        assert seen.exit_code == 0, seen.output
        found: dict[str, Any] = json.loads(seen.output)
        tests = self.sandbox.run(GROUND, Command(PytestRun(scoring=True)))
        found["outcomes"] = {record.id: record.outcome for record in tests.records}
        found["messages"] = [record.message for record in tests.records]
        found["results"] = [
            (run.exit_code, sorted(run.hit), run.tampered, run.canaries_missing) for run in (seen, tests)
        ]
        return found

    def assert_unaffected(self) -> None:
        """The next runs see what the first ones saw, and there is no doubt."""
        now = self.witness()
        changed = {key: (now[key], self.at_first[key]) for key in now if now[key] != self.at_first[key]}
        assert not changed, f"the next run is affected: {changed}"
        assert not self.sandbox.doubt, self.sandbox.doubt


@contextmanager
def arena_of(request: pytest.FixtureRequest) -> Iterator[Arena]:
    """The arena of the kind that is the fixture's parameter, or a skip with the reason."""
    request.getfixturevalue(f"{request.param.partition('-')[0]}_backend")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPO_AGENT_TEST_SECRET", SECRET)
        backend = BACKENDS[request.param](f"{RUN_ID}-hostile")
        try:
            arena = Arena(request.param, backend)
            yield arena
            arena.sandbox.close()
        finally:
            backend.close()
