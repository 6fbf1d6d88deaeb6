"""Sandboxes started ahead, and the two isolation levels over any backend.

With `Isolation.CONTAINER` a lease is a sandbox of one's own, and its end is the sandbox's end. With `Isolation.RUN` a
lease is a share in a few sandboxes, each of which serves one run at a time and is retired at the first doubt. How many
are started at once is bounded by the cores, how many live at once by the memory.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, defaultdict, deque
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from sandboxes.base import (
    Command,
    ExecResult,
    Isolation,
    Promises,
    Resources,
    Sandbox,
    SandboxBackend,
    SandboxError,
    SandboxNotStarted,
    SandboxUnavailable,
)
from sandboxes.workspace import Workspace

START_ATTEMPTS = 3
MEMORY_SHARE = 0.8
"""The part of the machine's memory that the limits of all living sandboxes may add up to."""
ROOM_S = 600.0
"""Wall-clock seconds that a lease waits for room."""
Key = tuple[Resources, str]


class Pooled(Sandbox, Protocol):
    """What the pool needs of a sandbox: whether another rollout may use it."""

    @property
    def doubt(self) -> str: ...


class PooledBackend(SandboxBackend, Protocol):
    """A backend whose sandboxes tell their doubts."""

    def open(self, resources: Resources, image: str = "") -> Pooled: ...


class Pool:
    """A backend over another one.

    Args:
        workers: so many leases are used at a time.
        memory_bytes: room for the limits of living sandboxes (default: a share of this machine's memory).
    """

    def __init__(self, backend: PooledBackend, workers: int = 2, memory_bytes: int = 0) -> None:
        cores = os.cpu_count() or 1
        self._backend, self._workers = backend, workers
        self._ahead = min(workers, cores)
        self._room = memory_bytes or int(_machine_memory() * MEMORY_SHARE)
        self._starters = ThreadPoolExecutor(cores, thread_name_prefix="sandbox-start")
        self._enders = ThreadPoolExecutor(cores, thread_name_prefix="sandbox-end")
        self._ready: defaultdict[Key, deque[Future[Pooled]]] = defaultdict(deque)
        self._wanted: Counter[Key] = Counter()
        self._alive: Counter[Key] = Counter()
        self._changed = threading.Condition()
        self._used: set[Pooled] = set()
        self._closed = False

    @property
    def name(self) -> str:
        return self._backend.name

    @property
    def isolation(self) -> Isolation:
        return self._backend.isolation

    @property
    def promises(self) -> Promises:
        return self._backend.promises

    @property
    def about(self) -> dict[str, str]:
        return self._backend.about

    def identity(self, image: str = "") -> str:
        return self._backend.identity(image)

    def prepare(self, resources: Resources, image: str, sandboxes: int) -> None:
        """So many leases will be taken: some are started now, in the background, and more as those are taken."""
        with self._changed:
            self._wanted[resources, image] += sandboxes
            self._start_ahead((resources, image))

    def open(self, resources: Resources, image: str = "") -> Sandbox:
        key = (resources, image)
        return SharedLease(self, key) if self.isolation is Isolation.RUN else OwnLease(self, key, self.take(key))

    # ---- leases

    def take(self, key: Key) -> Pooled:
        """A ready sandbox, or the next one that gets ready. Raises SandboxError."""
        while True:
            future, waited = self._next(key)
            try:
                return self._lent(future.result())
            except CancelledError:
                raise SandboxError("the pool of sandboxes is closed") from None
            except SandboxNotStarted:
                if not waited:  # one that was started ahead may have failed long ago
                    raise

    def _lent(self, sandbox: Pooled) -> Pooled:
        with self._changed:
            if not self._closed:
                self._used.add(sandbox)
                return sandbox
        sandbox.close()  # a run in it is a SandboxError
        return sandbox

    def _next(self, key: Key) -> tuple[Future[Pooled], bool]:
        """A sandbox that is ready or being started, and whether it was started ahead."""
        with self._changed:
            self._wanted[key] = max(0, self._wanted[key] - 1)
            while not self._closed:
                if self._ready[key]:
                    future = self._ready[key].popleft()
                    self._start_ahead(key)
                    return future, True
                if self._has_room(key):
                    future = self._submit(key)
                    self._start_ahead(key)
                    return future, False
                self._evict(key)
                if not self._changed.wait(ROOM_S):
                    raise SandboxNotStarted("no room for another sandbox")
            raise SandboxError("the pool of sandboxes is closed")

    def give_back(self, key: Key, sandbox: Pooled) -> None:
        """A sandbox after one run: ready for the next, unless there is a doubt."""
        with self._changed:
            if not sandbox.doubt and not self._closed:
                self._used.discard(sandbox)
                future: Future[Pooled] = Future()
                future.set_result(sandbox)
                self._ready[key].append(future)
                self._changed.notify()
                return
        self.end(key, sandbox)

    def end(self, key: Key, sandbox: Pooled) -> None:
        """Close a sandbox in the background."""
        with self._changed:
            ours = sandbox in self._used  # else the pool was closed, and has closed it
            self._used.discard(sandbox)

        def close() -> None:
            try:
                if ours:
                    sandbox.close()
            finally:
                self._ended(key)

        try:
            self._enders.submit(close)
        except RuntimeError:  # the pool is closed: nothing runs in the background any more
            close()

    # ---- starting and ending; all but the last three with the lock held

    def _start_ahead(self, key: Key) -> None:
        while len(self._ready[key]) < min(self._ahead, self._wanted[key]) and self._has_room(key):
            self._ready[key].append(self._submit(key))

    def _has_room(self, key: Key) -> bool:
        used = sum(resources.memory_bytes * count for (resources, _), count in self._alive.items())
        shared = self.isolation is Isolation.RUN and self._alive[key] >= self._workers
        return not shared and (not used or used + key[0].memory_bytes <= self._room)

    def _evict(self, key: Key) -> None:
        """Give up one that stands ready for others."""
        other = next((other for other, ready in self._ready.items() if other != key and ready), None)
        if other is not None:
            self._enders.submit(self._end_future, other, self._ready[other].pop())

    def _submit(self, key: Key) -> Future[Pooled]:
        self._alive[key] += 1
        return self._starters.submit(self._start, key)

    def _start(self, key: Key) -> Pooled:
        """In a thread of its own. An engine's fault is tried again."""
        again = retry_if_exception(lambda e: isinstance(e, SandboxError) and not isinstance(e, SandboxUnavailable))
        attempts = Retrying(
            stop=stop_after_attempt(1 if self._closed else START_ATTEMPTS),
            wait=wait_exponential(0.25),
            retry=again,
            reraise=True,
        )
        try:
            return attempts(self._backend.open, *key)
        except BaseException as error:
            self._ended(key)
            if isinstance(error, SandboxError) and not isinstance(error, SandboxUnavailable):
                raise SandboxNotStarted(str(error)) from error
            raise

    def _end_future(self, key: Key, future: Future[Pooled]) -> None:
        try:
            sandbox = future.result()
        except (SandboxError, CancelledError):
            return
        try:
            sandbox.close()
        finally:
            self._ended(key)

    def _ended(self, key: Key) -> None:
        with self._changed:
            self._alive[key] -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """End all sandboxes. Those who wait for one, or use one, get a SandboxError."""
        with self._changed:
            self._closed = True
            ready = [(key, future) for key, futures in self._ready.items() for future in futures]
            self._ready.clear()
            used, self._used = self._used, set()
            self._changed.notify_all()
        for _, future in ready:
            future.cancel()
        for key, future in ready:
            self._enders.submit(self._end_future, key, future)
        for sandbox in used:
            self._enders.submit(sandbox.close)
        self._starters.shutdown(cancel_futures=True)
        self._enders.shutdown()
        self._backend.close()


class _Lease:
    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class OwnLease(_Lease):
    """A sandbox of one's own."""

    def __init__(self, pool: Pool, key: Key, sandbox: Pooled) -> None:
        self._pool, self._key = pool, key
        self._sandbox: Pooled | None = sandbox

    def run(self, tree: Workspace, command: Command) -> ExecResult:
        if self._sandbox is None:
            raise SandboxError("the sandbox is closed")
        return self._sandbox.run(tree, command)

    def close(self) -> None:
        sandbox, self._sandbox = self._sandbox, None
        if sandbox is not None:
            self._pool.end(self._key, sandbox)


class SharedLease(_Lease):
    """A share: each run takes place in whichever sandbox is free."""

    def __init__(self, pool: Pool, key: Key) -> None:
        self._pool, self._key = pool, key
        self._lock = threading.Lock()
        self._running: set[Pooled] | None = set()

    def run(self, tree: Workspace, command: Command) -> ExecResult:
        if self._running is None:
            raise SandboxError("the sandbox is closed")
        sandbox = self._pool.take(self._key)
        try:
            self._begin(sandbox)
            return sandbox.run(tree, command)
        finally:
            self._end(sandbox)
            self._pool.give_back(self._key, sandbox)

    def _begin(self, sandbox: Pooled) -> None:
        with self._lock:
            if self._running is None:  # it was closed meanwhile
                raise SandboxError("the sandbox is closed")
            self._running.add(sandbox)

    def _end(self, sandbox: Pooled) -> None:
        with self._lock:
            if self._running is not None:
                self._running.discard(sandbox)

    def close(self) -> None:
        """What still runs for this lease ends, and its sandbox with it."""
        with self._lock:  # none of them is given back meanwhile
            running, self._running = self._running, None
            for sandbox in running or ():
                sandbox.close()


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
