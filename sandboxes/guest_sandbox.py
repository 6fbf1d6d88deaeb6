"""The host's side of the guest runner: a sandbox over any two-way byte stream that ends in `guest.py`."""

from __future__ import annotations

import base64
import json
import signal
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from sandboxes.base import Command, ExecResult, Limit, PytestRun, SandboxError, TestRecord
from sandboxes.canaries import Canaries
from sandboxes.guest.wire import PROTOCOL
from sandboxes.guest_bundle import guest_source, reporter_source
from sandboxes.workspace import File, Tree, Workspace

START_S = 60.0
"""Wall-clock seconds that a guest may take to greet, a slow machine included."""
GRACE_S = 30.0
"""Wall-clock seconds beyond a run's own limit before the guest counts as lost."""
MAX_REPLY = 128 * 2**20
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONIOENCODING": "utf-8",
    "USER": "nobody",
    "LOGNAME": "nobody",
}
"""The whole environment of a run, whatever the backend; the host's is never inherited."""

BOOTSTRAP = """
import json, struct, sys
sys.path[:] = [path for path in sys.path if path] + sys.argv[1:]
size, = struct.unpack(">I", sys.stdin.buffer.read(4))
boot = json.loads(sys.stdin.buffer.read(size).decode())
guest = {"__name__": "guest"}
exec(compile(boot["guest"], "<guest>", "exec"), guest)
guest["serve"](boot["options"], boot["reporter"])
"""


@dataclass(frozen=True)
class GuestOptions:
    """How a guest works in its place."""

    root: str
    """Where the tree is laid out."""
    scratch: tuple[str, ...]
    """What a run can write to besides."""
    home: str
    separate_user: bool
    """Runs have another user than the runner, if the runner is root."""
    private: bool
    """Files, processes and IPC objects that it sees are the sandbox's own."""
    namespaces: bool = False
    """Wall each run off by namespaces, where the kernel lets the runner do so."""
    user_per_run: bool = False
    address_space: int = 0
    """Bytes of memory of one process; 0 where the sandbox as a whole is limited."""
    disk_bytes: int = 0
    bases: str = ""
    """Where the driver's trees are mounted; empty where trees are kept in the runner's memory."""
    shipped: str = ""
    """Where trees are written that could not be mounted."""
    marker: str = ""
    """By which the guest tells that the mount is ours."""
    ttl_s: int = 24 * 3600
    """The guest ends after so many seconds, whatever became of its owner."""


class Channel(Protocol):
    """A byte stream to a guest. Both calls raise SandboxError; `close` ends the guest and never raises."""

    def send(self, data: bytes) -> None: ...
    def receive(self, size: int, deadline: float) -> bytes: ...
    def ran_out_of_memory(self, since: float) -> bool:
        """Did the sandbox as a whole meet its limit of memory after that Unix time?"""

    def close(self) -> None: ...


class GuestSandbox:
    """Runs commands through a guest. One run at a time; after any fault, and after a run that took the guest with it,
    it is closed and stays closed.

    Args:
        put: makes a tree's base available to the guest where it can be mounted.
    """

    def __init__(
        self,
        channel: Channel,
        options: GuestOptions,
        environment: dict[str, str] | None = None,
        put: Callable[[Tree], str] | None = None,
    ) -> None:
        self._channel = channel
        self._environment = ENVIRONMENT | (environment or {})
        self._lock = threading.Lock()
        self.runs = 0
        self._ended = False
        self.doubt = ""
        """Why another rollout should not be run in it."""
        try:
            boot = {"guest": guest_source(), "reporter": reporter_source(), "options": asdict(options)}
            channel.send(_frame(boot))
            self.hello = self._reply(START_S)
            if self.hello.get("protocol") != PROTOCOL:
                raise SandboxError(f"the guest speaks protocol {self.hello.get('protocol')}, not {PROTOCOL}")
        except BaseException:
            channel.close()
            raise
        self._put = put if put and self.hello["mounted"] else None

    def run(self, tree: Workspace, command: Command) -> ExecResult:
        """Run a command on a fresh copy of the tree. Raises SandboxError if the guest is lost."""
        scoring = isinstance(command.run, PytestRun) and command.run.scoring
        canaries = Canaries.fresh() if scoring else None
        with self._lock:
            if self._ended:
                raise SandboxError("the sandbox is closed")
            began = time.time()
            try:
                self.runs += 1
                reply = self._run(tree.base, _run_request(tree, command, self._environment, canaries))
                self.doubt = str(reply.get("doubt", "")) or self.doubt
                return _result(reply, canaries)
            except BaseException as error:
                self.doubt = "it failed"
                lost = isinstance(error, SandboxError) and not self._ended
                used_up = lost and self._channel.ran_out_of_memory(began)
                self._ended = True
                self._channel.close()
                if used_up:  # by the run, and the kernel took the runner for it: the target's doing, and no fault
                    return ExecResult(-signal.SIGKILL, "", frozenset({Limit.MEMORY}), canaries_missing=scoring)
                raise

    def _run(self, base: Tree, request: dict[str, Any]) -> dict[str, Any]:
        """Ask for a run; a tree that the guest lacks is sent first."""
        digest = self._put(base) if self._put else base.digest
        message = _frame(request | {"base": digest})
        wait_s = float(request["limits"]["wall_s"]) + GRACE_S
        self._channel.send(message)
        reply = self._reply(wait_s)
        if "missing" in reply:
            files = {path: _entry(base.file(path)) for path in base.paths}
            self._channel.send(_frame({"op": "base", "base": digest, "files": files}))
            self._reply(GRACE_S)
            self._channel.send(message)
            reply = self._reply(wait_s)
        if "fault" in reply or "missing" in reply:
            raise SandboxError(f"the guest could not run: {reply.get('fault') or 'it has no such tree'}")
        return reply

    def _reply(self, wait_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + wait_s
        (size,) = struct.unpack(">I", self._channel.receive(4, deadline))
        if size > MAX_REPLY:
            raise SandboxError(f"the guest announced a reply of {size} bytes")
        try:
            reply = json.loads(self._channel.receive(size, deadline))
        except (ValueError, RecursionError) as error:
            raise SandboxError(f"the guest sent no valid reply: {error}") from error
        if not isinstance(reply, dict):
            raise SandboxError("the guest sent no valid reply")
        return reply

    def close(self) -> None:
        self.doubt = self.doubt or "it is closed"
        self._ended = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _frame(message: dict[str, Any]) -> bytes:
    body = json.dumps(message).encode()
    return struct.pack(">I", len(body)) + body


def _entry(file: File) -> tuple[str, str]:
    return file.mode.value, base64.b64encode(file.content).decode()


def _run_request(
    tree: Workspace, command: Command, environment: dict[str, str], canaries: Canaries | None
) -> dict[str, Any]:
    run: dict[str, Any] | list[str] = list(command.run) if isinstance(command.run, tuple) else asdict(command.run)
    if isinstance(run, dict):
        run["canaries"] = []
    if canaries and isinstance(run, dict):
        tree = canaries.planted(tree)
        run["args"] = canaries.chosen(run["args"])
        run["only"] = [*run["only"], *canaries.ids] if run["only"] else []
        run["canaries"] = [{"name": name, "passes": passes} for name, passes in canaries.among.items()]
    return {
        "op": "run",
        "edits": {path: None if file is None else _entry(file) for path, file in tree.edits.items()},
        "run": run,
        "pythonpath": list(command.pythonpath),
        "env": environment | dict(command.env),
        "limits": asdict(command.limits),
    }


def _result(reply: dict[str, Any], canaries: Canaries | None) -> ExecResult:
    try:
        records = tuple(
            TestRecord(str(r["id"]), str(r["outcome"]), str(r["message"]), float(r["seconds"]))
            for r in reply["records"]
        )
        hit = {Limit(name) for name in reply["hit"]}
        hit |= {Limit.TEST} if any(r["over_limit"] for r in reply["records"]) else set()
        tampered = [record.message for record in records if record.outcome == "tampered"]
        records = tuple(record for record in records if record.outcome != "tampered")
        wrong, missing = "", False
        if canaries:
            records, wrong, missing = canaries.checked(records)
        return ExecResult(
            exit_code=int(reply["exit_code"]),
            output=str(reply["output"]),
            hit=frozenset(hit),
            wall_s=float(reply["wall_s"]),
            cpu_s=float(reply["cpu_s"]),
            records=records,
            tampered=tampered[0] if tampered else wrong,
            canaries_missing=missing,
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise SandboxError(f"the guest sent an incomplete reply: {error}") from error
