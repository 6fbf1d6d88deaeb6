"""What a run owns outside its own process, and the promise that none of it outlives the run.

Containers and volumes carry the run's labels, temporary files lie in the run's directory, and a reaper process in a
session of its own (`sandboxes/reaper.py`) removes both when the run's process ends without having said goodbye, SIGKILL
included. What even the reaper could not remove (the machine went down, the engine was away) is shown by `repo-agent
sandbox ps` and removed by `repo-agent sandbox prune`, which judge the owner that is named in the labels.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from sandboxes.base import SandboxError
from sandboxes.run_directory import Mark, remove_tree, write_mark

LABEL = "repo-agent"
"""The label with the kind of a thing; `.run`, `.owner` and `.expires` (Unix time) are added for the others."""
TTL_S = 24 * 3600
_WAIT_S = 5.0


class RunScope:
    """The containers, volumes and temporary files of one run, told from all others by `run_id`.

    Args:
        engine: things may be made on the Docker engine, so the reaper has to look there.
        ttl_s: after so many seconds `prune` takes a thing for left behind where it cannot ask for its owner.
    """

    def __init__(self, run_id: str = "", engine: bool = False, ttl_s: int = TTL_S) -> None:
        self.run_id = run_id or uuid.uuid4().hex[:12]
        if not re.fullmatch(r"\w[\w.-]{0,99}", self.run_id, re.ASCII):
            raise ValueError(f"not fit to be a run's id: {self.run_id!r}")
        self.owner = owner_of(os.getpid())
        self._pid, self._engine, self._ttl_s = os.getpid(), engine, ttl_s
        self._directory = Path(tempfile.gettempdir()) / f"{LABEL}-{self.run_id}-{uuid.uuid4().hex[:8]}"
        self._made = self._closed = False
        self._reaper: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()

    def labels(self, kind: str = "sandbox") -> dict[str, str]:
        """What every container and volume of this run must carry."""
        expires = str(int(time.time()) + self._ttl_s)
        return {
            LABEL: kind,
            f"{LABEL}.run": self.run_id,
            f"{LABEL}.owner": self.owner,
            f"{LABEL}.expires": expires,
        }

    @property
    def directory(self) -> Path:
        """The run's private temporary directory; it is made on first use, under the reaper's guard."""
        with self._lock:
            if not self._made:
                self.guard()
                self._directory.mkdir(mode=0o700)
                write_mark(self._directory, Mark(self.run_id, self.owner, int(time.time()) + self._ttl_s))
                self._made = True
            return self._directory

    def guard(self) -> None:
        """Have a reaper: to be called before anything is made outside this process. Raises SandboxError."""
        if os.getpid() != self._pid:  # a forked child: its parent's reaper stands
            return
        with self._lock:
            if self._closed:
                raise SandboxError("the run is closed")
            if self._reaper and self._reaper.poll() is not None:  # somebody killed it
                self._dismiss()
            self._reaper = self._reaper or self._start_reaper()

    def _start_reaper(self) -> subprocess.Popen[bytes]:
        script = Path(__file__).with_name("reaper.py")
        argv = [sys.executable, "-I", "-S", str(script), str(self._pid), self.run_id]
        path = [entry for entry in sys.path if os.path.isabs(entry)]
        task = {"run": self.run_id, "directory": str(self._directory), "engine": self._engine, "path": path}
        null, pipe = subprocess.DEVNULL, subprocess.PIPE
        try:
            with _no_signals():
                reaper = subprocess.Popen(
                    argv, bufsize=0, cwd="/", stdin=pipe, stdout=null, stderr=null, start_new_session=True
                )
            assert reaper.stdin
            reaper.stdin.write(json.dumps(task).encode() + b"\n")
        except OSError as error:
            raise SandboxError(f"cannot start the reaper: {error.strerror}") from error
        return reaper

    def close(self) -> None:
        """Remove the directory and dismiss the reaper. What was made on the engine must have been removed before.

        Raises:
            OSError: something in the directory cannot be removed.
        """
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._closed = True
            try:
                remove_tree(self._directory)
            finally:
                self._dismiss()

    def _dismiss(self) -> None:
        reaper, self._reaper = self._reaper, None
        if reaper is None:
            return
        assert reaper.stdin
        with contextlib.suppress(BrokenPipeError):
            reaper.stdin.write(b".")
        reaper.stdin.close()
        try:
            reaper.wait(_WAIT_S)
        except subprocess.TimeoutExpired:
            reaper.kill()
            reaper.wait()


@contextlib.contextmanager
def _no_signals() -> Iterator[None]:
    """Processes that are started here never hear what ends others: the mask of this thread is inherited."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---- the owner of a thing


def owner_of(pid: int) -> str:
    """A process, named so that neither a later one with its number nor one on another machine is taken for it."""
    return f"{_host()}:{pid}:{_started(pid)}"


def owner_alive(value: str) -> bool | None:
    """Whether a process that `owner_of` named still runs; None where that cannot be known from here."""
    host, pid, started = (*value.split(":", 2), "", "", "")[:3]
    if host != _host() or not (pid.isascii() and pid.isdecimal()) or not started:
        return None
    now = _started(int(pid))
    return now == started if now else _hidden(int(pid))


@cache
def _host() -> str:
    """This boot of this machine, and the namespace that its process ids are counted in."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}.{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return f"{os.uname().nodename}.{uuid.getnode():x}".replace(":", "-")


def _started(pid: int) -> str:
    """When a process was started, in the machine's own terms; empty where none runs, or none that may be looked at."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return "" if Path("/proc/self/stat").exists() else _started_by_ps(pid)
    state, *fields = line.rpartition(b")")[2].split()
    return "" if state in (b"Z", b"X") else fields[18].decode()


def _started_by_ps(pid: int) -> str:
    environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
    try:
        said = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, env=environment)
    except OSError:
        return ""
    return said.stdout.strip()


def _hidden(pid: int) -> bool:
    """Whether there is a process of another user whose files under /proc are kept from us."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return not Path(f"/proc/{pid}/stat").exists()
    except (OSError, OverflowError):
        pass
    return False
