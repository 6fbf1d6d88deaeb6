"""The pool: who gets which sandbox, how many there are, and what becomes of a fault."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from sandboxes.base import (
    Command,
    Isolation,
    Promises,
    Resources,
    Sandbox,
    SandboxError,
    SandboxNotStarted,
    SandboxUnavailable,
)
from sandboxes.guest_sandbox import GuestSandbox
from sandboxes.local_sandbox import LocalBackend
from sandboxes.pool import Pool
from sandboxes.workspace import MappingTree, Workspace

TREE = Workspace(MappingTree({"name.txt": b"here\n"}))
SMALL, LARGE = Resources(), Resources(memory_bytes=2 * 2**30)


class Counting:
    """The local backend, with a count of what is started and alive, and faults on demand."""

    def __init__(self, isolation: Isolation) -> None:
        self._inner = LocalBackend(isolation)
        self.isolation = isolation
        self.name, self.about = self._inner.name, self._inner.about
        self.faults: list[SandboxError] = []
        self.started: list[GuestSandbox] = []
        self.starting = self.most_starting = self.closed = 0
        self.lock = threading.Lock()

    @property
    def promises(self) -> Promises:
        return self._inner.promises

    @property
    def alive(self) -> int:
        return len(self.started) - self.closed

    def identity(self, image: str = "") -> str:
        return self._inner.identity(image)

    def prepare(self, resources: Resources, image: str, sandboxes: int) -> None:
        raise AssertionError("the pool starts ahead by itself")

    def open(self, resources: Resources, image: str = "") -> GuestSandbox:
        with self.lock:
            self.starting += 1
            self.most_starting = max(self.most_starting, self.starting)
            fault = self.faults.pop(0) if self.faults else None
        try:
            if fault:
                raise fault
            return self._opened(resources)
        finally:
            with self.lock:
                self.starting -= 1

    def _opened(self, resources: Resources) -> GuestSandbox:
        sandbox = self._inner.open(resources)
        close, first = sandbox.close, True

        def closed() -> None:
            nonlocal first
            close()
            with self.lock:  # closing twice is closing once
                self.closed += first
                first = False

        sandbox.close = closed  # type: ignore[method-assign]
        with self.lock:
            self.started.append(sandbox)
        return sandbox

    def close(self) -> None:
        self._inner.close()


@contextmanager
def pool_of(isolation: Isolation, workers: int = 2, memory_bytes: int = 0) -> Iterator[tuple[Pool, Counting]]:
    backend = Counting(isolation)
    pool = Pool(backend, workers, memory_bytes)
    try:
        yield pool, backend
    finally:
        pool.close()
    assert backend.alive == 0


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_each_lease_is_a_sandbox_of_its_own() -> None:
    with pool_of(Isolation.CONTAINER) as (pool, backend):
        for number in range(3):
            with pool.open(SMALL) as sandbox:
                assert sandbox.run(TREE, Command(("cat", "name.txt"))).output == "here\n"
            assert [each.runs for each in backend.started] == [1] * (number + 1)


def test_sandboxes_are_started_ahead_and_none_in_vain() -> None:
    with pool_of(Isolation.CONTAINER, workers=2) as (pool, backend):
        pool.prepare(SMALL, "", 4)
        ahead = min(2, os.cpu_count() or 1)
        assert eventually(lambda: len(backend.started) == ahead)
        for _ in range(4):
            pool.open(SMALL).close()
        assert eventually(lambda: backend.alive == 0)
        assert len(backend.started) == 4


def test_no_more_are_started_at_once_than_there_are_cores() -> None:
    with pool_of(Isolation.CONTAINER, workers=8) as (pool, backend), ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: pool.open(SMALL).close(), range(12)))
        assert backend.most_starting <= (os.cpu_count() or 1)


def test_fault_of_the_engine_is_tried_again() -> None:
    with pool_of(Isolation.CONTAINER) as (pool, backend):
        backend.faults = [SandboxError("busy"), SandboxError("busy")]
        with pool.open(SMALL) as sandbox:
            assert sandbox.run(TREE, Command(("true",))).exit_code == 0


def test_fault_that_stays_is_told_as_not_started() -> None:
    with pool_of(Isolation.CONTAINER) as (pool, backend):
        backend.faults = [SandboxError("engine down")] * 3
        with pytest.raises(SandboxNotStarted, match="engine down"):
            pool.open(SMALL)
        assert not backend.faults
        pool.open(SMALL).close()


def test_what_cannot_be_had_is_not_tried_again() -> None:
    with pool_of(Isolation.CONTAINER) as (pool, backend):
        backend.faults = [SandboxUnavailable("no image")] * 2
        with pytest.raises(SandboxUnavailable, match="no image"):
            pool.open(SMALL)
        assert len(backend.faults) == 1
        backend.faults.clear()


def test_failed_start_ahead_spoils_no_lease() -> None:
    with pool_of(Isolation.CONTAINER, workers=1) as (pool, backend):
        backend.faults = [SandboxError("engine down")] * 3
        pool.prepare(SMALL, "", 1)
        assert eventually(lambda: not backend.faults)
        pool.open(SMALL).close()


def test_lease_waits_for_room() -> None:
    with (
        pool_of(Isolation.CONTAINER, memory_bytes=2 * SMALL.memory_bytes) as (pool, backend),
        ThreadPoolExecutor(1) as thread,
    ):
        first, second = pool.open(SMALL), pool.open(SMALL)
        third = thread.submit(pool.open, SMALL)
        time.sleep(0.3)
        assert not third.done()
        assert backend.alive == 2
        first.close()
        third.result(30).close()
        second.close()


def test_sandbox_larger_than_the_room_is_still_had_alone() -> None:
    with pool_of(Isolation.CONTAINER, memory_bytes=SMALL.memory_bytes // 2) as (pool, _):
        pool.open(SMALL).close()


def test_idle_sandbox_of_another_kind_makes_room() -> None:
    with pool_of(Isolation.CONTAINER, memory_bytes=LARGE.memory_bytes) as (pool, backend):
        pool.prepare(SMALL, "", 2)
        assert eventually(lambda: len(backend.started) >= 1)
        pool.open(LARGE).close()


def test_shared_sandboxes_are_as_many_as_workers() -> None:
    with pool_of(Isolation.RUN, workers=2) as (pool, backend), ThreadPoolExecutor(6) as threads:
        pool.prepare(SMALL, "", 12)

        def rollout(_: int) -> str:
            with pool.open(SMALL) as sandbox:
                return "".join(sandbox.run(TREE, Command(("cat", "name.txt"))).output for _ in range(2))

        assert set(threads.map(rollout, range(12))) == {"here\nhere\n"}
        assert 1 <= len(backend.started) <= 2
        assert sum(each.runs for each in backend.started) == 24


def test_doubted_sandbox_is_retired() -> None:
    with pool_of(Isolation.RUN, workers=1) as (pool, backend), pool.open(SMALL) as lease:
        lease.run(TREE, Command(("true",)))
        backend.started[0].doubt = "something is left"
        lease.run(TREE, Command(("true",)))
        assert eventually(lambda: backend.closed == 1)
        lease.run(TREE, Command(("true",)))
        assert [each.runs for each in backend.started] == [2, 1]


def test_lost_sandbox_is_replaced() -> None:
    with pool_of(Isolation.RUN, workers=1) as (pool, backend), pool.open(SMALL) as lease:
        kill_runner = Command(("sh", "-c", "kill -9 $PPID; sleep 60"))
        with pytest.raises(SandboxError):
            lease.run(TREE, kill_runner)
        assert lease.run(TREE, Command(("echo", "next"))).output == "next\n"
        assert len(backend.started) == 2


@pytest.mark.parametrize("isolation", list(Isolation))
def test_closed_pool_frees_those_who_wait_and_ends_what_runs(isolation: Isolation) -> None:
    with pool_of(isolation, workers=1, memory_bytes=SMALL.memory_bytes) as (pool, _), ThreadPoolExecutor(2) as threads:
        running = threads.submit(held, pool)
        time.sleep(0.5)
        waiting = threads.submit(held, pool)
        time.sleep(0.2)
        closing = threading.Thread(target=pool.close)
        closing.start()
        with pytest.raises(SandboxError):
            waiting.result(30)
        with pytest.raises(SandboxError):
            running.result(30)
        closing.join(30)
        with pytest.raises(SandboxError):
            pool.open(SMALL).run(TREE, Command(("true",)))


def held(pool: Pool) -> Sandbox:
    """A lease that runs something for a while."""
    with pool.open(SMALL) as sandbox:
        sandbox.run(TREE, Command(("sleep", "1000")))
    return sandbox
