"""A guest as a child process of this one (bubblewrap and local sandboxes)."""

from __future__ import annotations

import os
import select
import subprocess
import threading
import time
from collections.abc import Callable, Sequence

from sandboxes.base import SandboxError


class ProcessChannel:
    """Speaks to a child over its standard streams; `after_close` runs once, when the child is gone."""

    def __init__(self, argv: Sequence[str], environment: dict[str, str], after_close: Callable[[], None]) -> None:
        self._after_close: Callable[[], None] | None = after_close
        self._reading = threading.Lock()
        try:
            self._process = subprocess.Popen(
                argv,
                env=environment,
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            self._finish()
            raise SandboxError(f"cannot start {argv[0]}: {error.strerror}") from error

    def send(self, data: bytes) -> None:
        assert self._process.stdin
        try:
            view = memoryview(data)
            while view:
                view = view[self._process.stdin.write(view) or 0 :]
        except (OSError, ValueError) as error:
            raise self._lost() from error

    def receive(self, size: int, deadline: float) -> bytes:
        with self._reading:  # `close` takes no descriptor away while it is being read
            parts: list[bytes] = []
            while size:
                parts.append(self._read(size, deadline))
                size -= len(parts[-1])
            return b"".join(parts)

    def _read(self, size: int, deadline: float) -> bytes:
        assert self._process.stdout
        if self._process.stdout.closed:
            raise SandboxError("the sandbox is closed")
        poller = select.poll()
        poller.register(self._process.stdout, select.POLLIN)
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise SandboxError("the sandbox did not answer in time")
        data = os.read(self._process.stdout.fileno(), min(size, 1 << 20))
        if not data:
            raise self._lost()
        return data

    def _lost(self) -> SandboxError:
        """The child has gone; say what it said last."""
        try:
            self._process.wait(timeout=2)
            assert self._process.stderr
            said = self._process.stderr.read().decode(errors="replace").strip().splitlines()
        except (subprocess.TimeoutExpired, ValueError):
            said = []
        return SandboxError("the sandbox ended unexpectedly" + (f": {said[-1]}" if said else ""))

    def ran_out_of_memory(self, since: float) -> bool:
        """There is no limit of the whole that could be met."""
        return False

    def close(self) -> None:
        """Ends the guest; a read in another thread then ends with SandboxError."""
        if self._after_close is None:
            return
        assert self._process.stdin and self._process.stdout and self._process.stderr
        try:
            self._process.stdin.close()  # the guest kills its run and ends
            self._process.wait(timeout=5)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        with self._reading:
            self._process.stdout.close()
            self._process.stderr.close()
        self._finish()

    def _finish(self) -> None:
        after, self._after_close = self._after_close, None
        if after:
            after()
