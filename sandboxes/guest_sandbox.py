"""The host's side of the guest runner: a sandbox over any two-way byte stream that ends in `guest.py`."""

from __future__ import annotations

import base64
import json
import struct
import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from sandboxes.base import Command, ExecResult, PytestRun, SandboxError, TestRecord
from sandboxes.workspace import File, Tree, Workspace

PROTOCOL = 1
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
import json, struct, sys, types
sys.path[:] = [path for path in sys.path if path] + sys.argv[1:]
boot = json.loads(sys.stdin.buffer.read(struct.unpack(">I", sys.stdin.buffer.read(4))[0]).decode())
made = {}
for name, source in boot["modules"]:
    module = made[name] = types.ModuleType(name)
    exec(compile(source, "<%s>" % name, "exec"), module.__dict__)
made["guest"].serve(boot["options"], made["guest_pytest"].run_pytest, made["guest_pytest"].warm_up)
"""


class Channel(Protocol):
    """A byte stream to a guest. Both calls raise SandboxError; `close` ends the guest and never raises."""

    def send(self, data: bytes) -> None: ...
    def receive(self, size: int, deadline: float) -> bytes: ...
    def close(self) -> None: ...


class GuestSandbox:
    """Runs commands through a guest. One run at a time; after any fault it is closed and stays closed."""

    def __init__(self, channel: Channel, options: dict[str, object], environment: dict[str, str] | None = None) -> None:
        self._channel = channel
        self._environment = ENVIRONMENT | (environment or {})
        self._base: Tree | None = None
        self._lock = threading.Lock()
        try:
            channel.send(_frame({"modules": _guest_modules(), "options": options}))
            self.hello = self._reply(START_S)
        except BaseException:
            channel.close()
            raise
        if self.hello.get("protocol") != PROTOCOL:
            channel.close()
            raise SandboxError(f"the guest speaks protocol {self.hello.get('protocol')}, not {PROTOCOL}")

    def run(self, tree: Workspace, command: Command) -> ExecResult:
        """Run a command on a fresh copy of the tree. Raises SandboxError if the guest is lost."""
        with self._lock:
            try:
                self._place(tree.base)
                self._channel.send(_frame(_run_request(tree, command, self._environment)))
                return _result(self._reply(command.limits.wall_s + GRACE_S))
            except BaseException:
                self._channel.close()
                raise

    def _place(self, base: Tree) -> None:
        if self._base is not base:
            self._channel.send(_frame({"op": "base", "files": {path: _entry(base.file(path)) for path in base.paths}}))
            self._reply(GRACE_S)
            self._base = base

    def _reply(self, wait_s: float) -> dict[str, Any]:
        deadline = time.monotonic() + wait_s
        (size,) = struct.unpack(">I", self._channel.receive(4, deadline))
        if size > MAX_REPLY:
            raise SandboxError(f"the guest announced a reply of {size} bytes")
        try:
            reply = json.loads(self._channel.receive(size, deadline))
        except ValueError as error:
            raise SandboxError(f"the guest sent no valid reply: {error}") from error
        if not isinstance(reply, dict):
            raise SandboxError("the guest sent no valid reply")
        return reply

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _guest_modules() -> list[tuple[str, str]]:
    here = Path(__file__).parent
    return [(name, (here / f"{name}.py").read_text()) for name in ("guest", "guest_pytest")]


def _frame(message: dict[str, Any]) -> bytes:
    body = json.dumps(message).encode()
    return struct.pack(">I", len(body)) + body


def _entry(file: File) -> tuple[str, str]:
    return file.mode.value, base64.b64encode(file.content).decode()


def _run_request(tree: Workspace, command: Command, environment: dict[str, str]) -> dict[str, Any]:
    run = command.run
    return {
        "op": "run",
        "edits": {path: None if file is None else _entry(file) for path, file in tree.edits.items()},
        "run": asdict(run) if isinstance(run, PytestRun) else list(run),
        "pythonpath": list(command.pythonpath),
        "env": environment | dict(command.env),
        "limits": asdict(command.limits),
    }


def _result(reply: dict[str, Any]) -> ExecResult:
    try:
        records = [
            TestRecord(str(r["id"]), str(r["outcome"]), str(r["message"]), float(r["seconds"]))
            for r in reply["records"]
        ]
        tampered = [record.message for record in records if record.outcome == "tampered"]
        return ExecResult(
            exit_code=int(reply["exit_code"]),
            output=str(reply["output"]),
            truncated=bool(reply["truncated"]),
            timed_out=bool(reply["timed_out"]),
            wall_s=float(reply["wall_s"]),
            cpu_s=float(reply["cpu_s"]),
            records=tuple(record for record in records if record.outcome != "tampered"),
            tampered=tampered[0] if tampered else "",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SandboxError(f"the guest sent an incomplete reply: {error}") from error
