"""Calls under a deadline, which another thread can give up."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from harness.errors import InfrastructureError

_LAST_WAIT_S = 2.0
_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


class Calls:
    """Runs each call in a thread of its own; a late or given up one is left to it, and ends with its connection."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._pending: set[Future[Any]] = set()
        self._lock = threading.Lock()

    def within(self, limit_s: float, call: Callable[[], Any]) -> Any:
        """The call's result. httpx limits the wait for each read, not for the whole answer: this limits the whole.

        Raises:
            TimeoutError: it took longer.
            InfrastructureError: the calls were stopped.
        """
        future: Future[Any] = Future()
        with self._lock:
            if self.stopped.is_set():
                raise InfrastructureError("model calls were stopped")
            self._pending.add(future)
        thread = threading.Thread(target=_settle, args=(future, call), name="model-call", daemon=True)
        _threads.add(thread)
        thread.start()
        try:
            return future.result(limit_s)
        finally:
            with self._lock:
                self._pending.discard(future)

    def stop(self) -> None:
        """End the waiting of every call that is under way; no other one begins."""
        with self._lock:
            self.stopped.set()
            for future in self._pending:
                with suppress(InvalidStateError):
                    future.set_exception(InfrastructureError("model calls were stopped"))


def _settle(future: Future[Any], call: Callable[[], Any]) -> None:
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - raised in the caller
        with suppress(InvalidStateError):
            future.set_exception(error)
    else:
        with suppress(InvalidStateError):
            future.set_result(result)


@atexit.register
def _let_late_calls_end() -> None:
    """A call that comes back while the interpreter ends may die with the import lock, and the process then never ends.

    One that is given up ends by its own time limit at about this moment; one that still waits for bytes is harmless.
    """
    deadline = time.monotonic() + _LAST_WAIT_S
    for thread in list(_threads):
        thread.join(max(0.0, deadline - time.monotonic()))
