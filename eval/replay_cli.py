"""`repo-agent replay`: a determinism check. Every stored step is carried out again, and compared."""

from __future__ import annotations

import argparse
import math
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

from eval.replay import Difference, Divergence, Replayed, replay
from harness.cli import Parser, add_sandbox_flags, add_suite_flags, at_least
from harness.errors import UsageError
from harness.records import Task, TestPolicy, Trace
from harness.rollout import RolloutLimits
from harness.run import MAX_ERRORS_IN_A_ROW
from harness.run_files import RunConfig, read_config
from harness.trace_reader import TraceLog
from sandboxes.base import Isolation, SandboxBackend
from sandboxes.no_sandbox import NONE
from sandboxes.verdict_cache import CachedBackend, verdict_directory
from suites.base import Suite, load, load_recorded
from suites.fetch import mirror_directory
from suites.opening import open_for, prepared

EXIT_DIVERGED, EXIT_INFRASTRUCTURE = 1, 3


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="repo-agent replay", description="Carry out stored rollouts again, and name what differs.")
    add_stored_run_flags(made)
    made.add_argument("--no-score", action="store_true", help="do not take the final scores again")
    return made


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit code is 0, 1 where a rollout diverged, 3 where infrastructure failed."""
    args = parser().parse_args(argv)
    with stored_run(args, cached=False) as run:
        for line in run.notices:
            print(f"repo-agent: {line}", file=sys.stderr)
        each = {TestPolicy.ON_WRITE: 2, TestPolicy.FINAL: 1, TestPolicy.NEVER: 0}[run.config.test_policy]
        run.prepare(max(0, each - args.no_score))
        seen = _Seen(len(run.rollouts))
        passed = Pass(run, lambda trace: _replayed(run, trace, not args.no_score), seen.take).go(args.num_workers)
    left = seen.total - seen.rollouts
    print(f"{seen.rollouts} rollouts, {seen.steps} steps replayed, {seen.diverged} diverged")
    if seen.unsteady:
        print(f"unsteady: {seen.unsteady} steps, whose tests do not always say the same of the same tree")
    if seen.faults:
        print(f"NOT REPLAYED to the end: {seen.faults} rollouts, for faults of the infrastructure")
    if passed.stopped:
        print(f"STOPPED EARLY: {passed.stopped}; not replayed: {left} rollouts")
    return EXIT_DIVERGED if seen.diverged else EXIT_INFRASTRUCTURE if seen.faults else 0


def _replayed(run: StoredRun, trace: Trace, scored: bool) -> Replayed:
    task = run.tasks.get(trace.header.task)
    if task is None:
        missing = Difference("task", trace.header.task, f"no such task in {run.suite.name} {run.suite.version[:12]}")
        return Replayed(trace.header.rollout, 0, Divergence(trace.header.rollout, "start", (missing,)))
    limits = RolloutLimits(run.config.max_iters, run.config.stop_on_loop)
    with run.suite.environment(task, run.backend, trace.header.test_policy) as environment:
        return replay(trace, environment, limits, scored)


@dataclass
class _Seen:
    """Counts, and says what there is to say of each rollout."""

    total: int
    rollouts: int = 0
    steps: int = 0
    diverged: int = 0
    unsteady: int = 0
    faults: int = 0

    def take(self, found: Replayed) -> None:
        self.rollouts += 1
        self.steps += found.steps
        self.diverged += found.divergence is not None
        self.unsteady += len(found.unsteady)
        self.faults += bool(found.fault)
        said = found.fault or ("DIVERGED" if found.divergence else "reproduced")
        head = f"[{self.rollouts}/{self.total}] {self.diverged} diverged:"
        print(f"{head} {found.rollout} {said}, {found.steps} steps", file=sys.stderr, flush=True)
        if found.unsteady:
            _say("unsteady", found.unsteady[0])
        if found.divergence:
            _say("DIVERGED", found.divergence)


def _say(kind: str, place: Divergence) -> None:
    first, *excerpt = place.lines
    print("\n".join([f"{kind}: {first}", *(f"    {line}" for line in excerpt)]), flush=True)


# ---- the stored run, opened again (rescore and score-steps open it so too)


def add_stored_run_flags(made: argparse.ArgumentParser) -> None:
    made.add_argument("run", type=Path, metavar="RUN", help="run directory")
    made.add_argument("--suite", help="suite name or suite file (default: the run's own)")
    made.add_argument("--limit", type=at_least(1), help="only the first N rollouts")
    add_suite_flags(made)
    add_sandbox_flags(made)
    made.set_defaults(sandbox=None, isolation=None)
    made.epilog = "Sandbox and isolation are the run's own where nothing else is said."


@dataclass(frozen=True)
class StoredRun:
    """A run directory, and what its rollouts need to be gone through again."""

    directory: Path
    config: RunConfig
    log: TraceLog
    rollouts: list[str]
    """The ids of those that are wanted."""
    suite: Suite
    tasks: dict[str, Task]
    backend: SandboxBackend
    notices: list[str]

    @property
    def carried(self) -> bool:
        """The suite is of another version than the run's."""
        return self.suite.version != self.config.suite_version

    def prepare(self, each: int) -> None:
        """Tell the backend that a rollout will open so many sandboxes."""
        kinds = Counter((task.resources, task.image) for task in self.tasks.values())
        for (resources, image), count in kinds.items():
            share = math.ceil(count / len(self.tasks) * len(self.rollouts))
            self.backend.prepare(resources, image, each * share)


@contextmanager
def stored_run(args: argparse.Namespace, cached: bool) -> Iterator[StoredRun]:
    """Open what the flags of `add_stored_run_flags` ask for; `cached`: known verdicts come from the verdict cache.

    Raises:
        UsageError: no run directory, no such suite, or a sandbox without a boundary that nobody asked for.
    """
    config = read_config(args.run)
    mirror = mirror_directory(args.mirror)
    suite = load(args.suite, mirror) if args.suite else load_recorded(config.suite, config.suite_version, mirror)
    tasks = {task.id: task for task in suite.tasks()}
    if args.sandbox is None and config.sandbox == "local":
        raise UsageError(
            "the tests of this run ran in the local sandbox, which is no security boundary: say --sandbox local to run "
            "what the rollouts wrote there again, or --sandbox auto for a boundary"
        )
    isolation = Isolation(args.isolation or config.isolation)
    with TraceLog(args.run) as log:
        rollouts = log.rollouts[: args.limit]
        played = {log.header(rollout).task for rollout in rollouts}
        wanted, left_out = prepared(suite, [tasks[task] for task in sorted(played & set(tasks))], args.num_workers)
        choice = args.sandbox or config.sandbox
        where = open_for(wanted, choice, args.base_image, False, isolation, args.num_workers)
        cached = cached and where[0].name != NONE
        backend = CachedBackend(where[0], verdict_directory()) if cached else where[0]
        notices = [*left_out, *where[1], *_warnings(config, suite, backend, log)]
        try:
            yield StoredRun(args.run, config, log, rollouts, suite, tasks, backend, notices)
        finally:
            backend.close()


def _warnings(config: RunConfig, suite: Suite, backend: SandboxBackend, log: TraceLog) -> Iterator[str]:
    if suite.version != config.suite_version:
        yield f"WARNING: the run is of version {config.suite_version[:12]} of its suite, this is {suite.version[:12]}"
    then, now = f"{config.sandbox} ({config.isolation})", f"{backend.name} ({backend.isolation})"
    if then != now:
        yield f"the tests of the run ran in {then}, not in {now}"
    if log.torn_bytes:
        yield f"the log ends in a torn line of {log.torn_bytes} bytes, as a crash leaves it: it is left out"


class Outcome(Protocol):
    """What going through one rollout came to."""

    @property
    def fault(self) -> str:
        """The infrastructure's, empty where there was none."""


Found = TypeVar("Found", bound=Outcome)


class Pass(Generic[Found]):
    """One pass over the rollouts of a stored run, in threads; one trace per thread is in memory.

    Args:
        on_done: told of each rollout that was gone through, one at a time.
    """

    def __init__(self, run: StoredRun, work: Callable[[Trace], Found], on_done: Callable[[Found], None]) -> None:
        self._run, self._work, self._on_done = run, work, on_done
        self._left = iter(run.rollouts)
        self._lock, self._cancelled = threading.Lock(), threading.Event()
        self._faults_in_a_row = 0
        self.stopped = ""
        """Why the pass ended before its time, if it did."""

    def go(self, workers: int) -> Self:
        """Returns when all is done, or when the infrastructure failed too often in a row. Bugs are raised."""
        with ThreadPoolExecutor(workers, thread_name_prefix="pass") as pool:
            futures = [pool.submit(self._worker) for _ in range(workers)]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                self._cancelled.set()
                self._run.backend.close()  # end the test runs that are under way
                raise
        return self

    def _worker(self) -> None:
        while not self._cancelled.is_set():
            with self._lock:
                rollout = next(self._left, None)
                if rollout is None:
                    return
                trace = self._run.log.trace(rollout)
            found = self._work(trace)
            with self._lock:
                self._on_done(found)
                self._count(found.fault)

    def _count(self, fault: str) -> None:
        self._faults_in_a_row = self._faults_in_a_row + 1 if fault else 0
        if self._faults_in_a_row >= MAX_ERRORS_IN_A_ROW:
            self.stopped = f"{self._faults_in_a_row} rollouts in a row failed: {fault}"
            self._cancelled.set()
