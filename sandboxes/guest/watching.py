"""Watching a run from outside: its pipes, its end, its limits."""

import os
import resource
import select
import signal
import time
from typing import Callable, Dict, List, Tuple

PAUSE_S = 0.5


class Capped:
    """Keeps the head and the tail of a stream."""

    def __init__(self, limit: int) -> None:
        self.half, self.head, self.tail, self.dropped = limit // 2, bytearray(), bytearray(), 0

    def add(self, data: bytes) -> None:
        room = self.half - len(self.head)
        self.head += data[:room]
        self.tail += data[room:]
        if len(self.tail) > 2 * self.half:
            self.dropped += len(self.tail) - self.half
            del self.tail[: len(self.tail) - self.half]

    def text(self) -> Tuple[str, bool]:
        extra = max(0, len(self.tail) - self.half)
        dropped, tail = self.dropped + extra, self.tail[extra:]
        middle = ("\n[... %d bytes dropped ...]\n" % dropped).encode() if dropped else b""
        return (self.head + middle + tail).decode("utf-8", "replace"), bool(dropped)


class Watch:
    """Waits for a child while its pipes are read, and for the owner's end."""

    def __init__(self, owner: int) -> None:
        self.owner = owner
        self.wake_r, wake_w = os.pipe()
        for fd in (self.wake_r, wake_w):
            os.set_blocking(fd, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake_w)

    def wait(self, pid: int, sinks: Dict[int, Capped], deadline: float, end: Callable[[int], int]) -> Tuple[int, bool]:
        """The child's wait status, and whether it was ended (by `end`) at the deadline. Raises SystemExit without an
        owner.
        """
        poller = select.poll()
        poller.register(self.owner, 0)
        poller.register(self.wake_r, select.POLLIN)
        for fd in sinks:
            os.set_blocking(fd, False)
            poller.register(fd, select.POLLIN | select.POLLHUP)
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return status, False
            left = deadline - time.monotonic()
            if left <= 0:
                return end(pid), True
            for fd, _ in poller.poll(min(left, PAUSE_S) * 1000 + 1):
                if fd == self.owner:
                    raise SystemExit("the owner is gone")
                if fd == self.wake_r:
                    drain(fd, Capped(0))
                elif not drain(fd, sinks[fd]):
                    poller.unregister(fd)


def drain(fd: int, sink: Capped) -> bool:
    """Move what is there from a pipe to its sink; False at the end of the stream."""
    for _ in range(64):
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return True
        if not data:
            return False
        sink.add(data)
    return True


def children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def cgroup_events() -> Dict[str, int]:
    """How often the kernel killed for want of memory, and refused a process, in this container (cgroup v1 or v2)."""
    events = {"memory": 0, "pids": 0}
    for limit, word, names in (
        ("memory", "oom_kill", ("memory/memory.oom_control", "memory.events")),
        ("pids", "max", ("pids/pids.events", "pids.events")),
    ):
        for name in names:
            try:
                with open("/sys/fs/cgroup/" + name) as file:
                    counts = dict(line.split() for line in file.read().splitlines())
                events[limit] = int(counts.get(word, 0))
            except (OSError, ValueError):
                pass
    return events


def new_events(before: Dict[str, int]) -> List[str]:
    now = cgroup_events()
    return [limit for limit in before if now[limit] > before[limit]]
