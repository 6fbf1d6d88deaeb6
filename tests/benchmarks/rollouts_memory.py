"""Memory over many rollouts: `python tests/benchmarks/rollouts_memory.py`.

Plays 200 scripted rollouts of QuixBugs tasks in turn (list, read, write the reference, final answer) with 8 workers in
Docker, each in a container of its own, and prints the resident memory of the process after 50 and after 200. Asserts
that each was scored 1. Asked for: at most 20 MB more after 200 than after 50.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path

from harness.policies.reference import ReferenceSource
from harness.records import Completion, Message, Sampling, Step, StopReason, Task, TestPolicy
from harness.rollout import RolloutEnded, RolloutLimits, rollout
from sandboxes.base import Isolation, SandboxBackend
from sandboxes.choose import open_backend
from suites.base import Suite, load

FIRST, ALL, WORKERS = 50, 200, 8


class Nothing:
    """A recorder that keeps nothing."""

    def start(self, prompt: tuple[Message, ...]) -> None: ...
    def completion(self, step_id: str, parent: str | None, completion: Completion) -> None: ...
    def outcome(self, step: Step) -> None: ...
    def done(self, stop: StopReason) -> None: ...
    def end(self, end: RolloutEnded) -> None: ...


def resident_mb() -> float:
    """VmRSS of this process, in units of 10**6 bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmRSS:"))


def played(suite: Suite, task: Task, backend: SandboxBackend) -> None:
    policy = ReferenceSource(suite.reference).policy(task, 0)
    with suite.environment(task, backend, TestPolicy.FINAL) as environment:
        ended = rollout(policy, environment, RolloutLimits(50), Sampling(), Nothing())
    assert not ended.error, ended.error
    assert ended.score.value == 1.0, f"{task.id}: {ended.score.why}"


def play(suite: Suite, tasks: Sequence[Task], backend: SandboxBackend, pool: ThreadPoolExecutor) -> float:
    """The memory when all have ended."""
    list(pool.map(lambda task: played(suite, task, backend), tasks))
    return resident_mb()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--suite", default="quixbugs")
    parser.add_argument("--isolation", type=Isolation, choices=list(Isolation), default=Isolation.CONTAINER)
    args = parser.parse_args()
    suite = load(args.suite)
    tasks = list(islice(cycle(suite.tasks()), ALL))
    start = resident_mb()
    backend, _ = open_backend("docker", isolation=args.isolation, workers=WORKERS)
    with closing(backend), ThreadPoolExecutor(WORKERS) as pool:
        backend.prepare(tasks[0].resources, tasks[0].image, ALL)
        first = play(suite, tasks[:FIRST], backend, pool)
        last = play(suite, tasks[FIRST:], backend, pool)
    print(f"resident memory: {start:.1f} MB at the start, {first:.1f} MB after {FIRST} rollouts, ", end="")
    print(f"{last:.1f} MB after {ALL}: {last - first:+.1f} MB")


if __name__ == "__main__":
    main()
