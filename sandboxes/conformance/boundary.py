"""Checks of the walls: between a run and the host, between a run and its runner, between one run and the next."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Any

from sandboxes.base import Isolation, Wall
from sandboxes.conformance.checking import (
    Check,
    Place,
    json_of,
    messages,
    pytest_run,
    python,
    require,
    same,
    still_works,
)

CALLER = """
import socket
for address in ("127.0.0.1", "172.17.0.1", "10.0.2.2", "localhost"):
    try: socket.create_connection((address, %d), timeout=2); print("REACHED", address)
    except OSError as error: print("no")
print(sorted(line.split(":")[0].strip() for line in open("/proc/net/dev") if ":" in line))
"""
READER = """
for path in (%r, %r, "/var/run/docker.sock", "/run/docker.sock", "/etc/shadow", "/root/.ssh", "/root/.cache"):
    try: open(path).read(); print("READ", path)
    except IsADirectoryError: print("DIRECTORY", path)
    except OSError: print("no")
"""
STATUS = """
import json, os
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print(json.dumps({
    "user": os.getresuid() + os.getresgid(), "groups": os.getgroups(), "pid": os.getpid(),
    "capabilities": [int(status[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapAmb")],
    "no_new_privs": status["NoNewPrivs"],
    "root": [line.split()[3].split(",")[0] for line in open("/proc/mounts") if line.split()[1] == "/"],
}))
"""
SPY = """
import ctypes, os
def attempt(function, *args):
    try: print("DONE", function(*args))
    except OSError: print("no")
runner = os.getppid()
attempt(os.open, "/proc/%d/fd/0" % runner, os.O_RDONLY)
attempt(os.readlink, "/proc/%d/fd/1" % runner)
attempt(open, "/proc/%d/mem" % runner, "rb")
attempt(open, "/proc/%d/environ" % runner, "rb")
attempt(os.readlink, "/proc/%d/exe" % runner)
libc = ctypes.CDLL(None, use_errno=True)
print("no" if libc.ptrace(16, runner, None, None) == -1 else "TRACED")
"""
KILLER = """
import os, signal
for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, signal.SIGINT):
    for target in (1, os.getppid()):
        try: os.kill(target, number)
        except OSError: pass
"""


def no_network_reaches_the_host(place: Place) -> None:
    """A run has a loopback of its own and no other network."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        result = python(place.sandbox, CALLER % server.getsockname()[1])
    same("output", result.output.splitlines(), ["no"] * 4 + ["['lo']"])


def files_of_the_host_are_not_visible(place: Place) -> None:
    """Neither temporary files, nor the program's own, nor the secrets of the machine."""
    with tempfile.NamedTemporaryFile() as secret:
        result = python(place.sandbox, READER % (secret.name, str(Path(__file__).parents[2])))
    same("output", set(result.output.splitlines()), {"no"})


def processes_of_the_host_are_not_visible(place: Place) -> None:
    """A run sees the processes of its sandbox only; the first of them is its parent."""
    code = f"import os; print({os.getpid()} in map(int, filter(str.isdigit, os.listdir('/proc'))), os.getppid())"
    same("output", python(place.sandbox, code).output, "False 1\n")


def run_has_no_privileges(place: Place) -> None:
    """No root, no capability, none to be had from a program's mode, and a root file system that is read-only."""
    for found in (json_of(python(place.sandbox, STATUS)), _status_of_a_test(place)):
        require(0 not in found["user"] and len(set(found["user"])) == 1, f"users and groups are {found['user']}")
        require(set(found["groups"]) <= {found["user"][0]}, f"other groups are {found['groups']}")
        same("capabilities", found["capabilities"], [0, 0, 0, 0])
        same("no_new_privs and mode of the root", (found["no_new_privs"], found["root"]), ("1", ["ro"]))


def _status_of_a_test(place: Place) -> Any:
    test = f"def test_it():\n    exec({STATUS!r}, {{}})\n    assert False\n"
    (message,) = messages(pytest_run(place.sandbox, {"test_it.py": test}), 1)
    return json.loads(message.splitlines()[-1])


def run_cannot_look_into_the_runner(place: Place) -> None:
    """The runner's descriptors, memory, environment and program are closed to a run, and it cannot be traced."""
    same("output of a command", python(place.sandbox, SPY).output, "no\n" * 6)
    test = f"def test_it():\n    exec({SPY!r}, {{}})\n    assert False\n"
    (message,) = messages(pytest_run(place.sandbox, {"test_it.py": test}), 1)
    require(message.endswith("no\n" * 6), f"a test could: {message}")


def run_cannot_kill_the_runner(place: Place) -> None:
    """Signals to the runner have no effect: the sandbox serves the next run."""
    python(place.sandbox, KILLER)
    still_works(place.sandbox)


def wall_is_the_declared_one(place: Place) -> None:
    """Namespaces number a run's processes anew; another user per run where runs share a sandbox without them."""
    wall, shared = place.backend.promises.wall, place.backend.isolation is Isolation.RUN
    first, second = (json_of(python(place.sandbox, STATUS)) for _ in range(2))
    if wall is Wall.NAMESPACES:
        same("process ids", (first["pid"], second["pid"]), (2, 2))
    if wall is Wall.USER:
        require(os.getuid() not in first["user"], "a run has the user of the driver")
    if wall is Wall.USER and shared:
        require(first["user"] != second["user"], f"two runs have the same user: {first['user']}")


CHECKS = (
    Check(no_network_reaches_the_host, needs="boundary"),
    Check(files_of_the_host_are_not_visible, needs="boundary"),
    Check(processes_of_the_host_are_not_visible, needs="boundary"),
    Check(run_has_no_privileges, needs="boundary"),
    Check(run_cannot_look_into_the_runner, needs="boundary"),
    Check(run_cannot_kill_the_runner, needs="boundary"),
    Check(wall_is_the_declared_one),
)
