"""A run: every task of a suite, so many times, by one policy, into one run directory."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Literal, Protocol

from harness.budget import Budget
from harness.environment import Environment
from harness.policy import PolicySource
from harness.progress_log import State
from harness.progress_workers import Workers
from harness.records import ForkPoint, Header, Sampling, StopReason, Task, TestPolicy, Trace
from harness.rollout import RolloutLimits, derived_seed, draw, rollout
from harness.run_files import RunConfig
from harness.trace_store import TraceStore
from sandboxes.base import SandboxBackend

MAX_ERRORS_IN_A_ROW = 5
"""So many rollouts in a row that the infrastructure spoilt stop the run."""


class TaskSource(Protocol):
    """What a run wants of a suite."""

    @property
    def version(self) -> str: ...
    def environment(self, task: Task, backend: SandboxBackend, test_policy: TestPolicy) -> Environment: ...
    def split_of(self, task: Task) -> Literal["train", "test", ""]: ...


@dataclass(frozen=True)
class Job:
    """One rollout to be played: of a task, from its start, or as a fork of another one, or taken up again."""

    task: Task
    index: int
    name: str = ""
    """Its id; empty: made of task and index."""
    fork: ForkPoint | None = None
    taken_up: Trace | None = None
    """The rollout as far as it is in the log already, or the path that a fork goes on from."""
    draw_only: bool = False
    """Only the next message after `taken_up` is wanted: it is written, and not carried out."""

    @property
    def rollout(self) -> str:
        return self.name or f"{self.task.id}#{self.index}"


@dataclass
class RunOutcome:
    """What became of a run's jobs."""

    played: int = 0
    failed: int = 0
    """Those of them that the infrastructure spoilt."""
    not_started: int = 0
    interrupted: bool = False
    stopped: str = ""
    """Why the run ended before its time, if it did."""

    @property
    def left(self) -> tuple[State, str]:
        """How the run was left, and why, for its progress log."""
        return "interrupted" if self.interrupted else "stopped" if self.stopped else "ended", self.stopped


class Run:
    """Plays rollouts in threads.

    Args:
        on_done: told of each rollout that ended, one at a time.
        workers: told of what each worker does.
    """

    def __init__(
        self,
        config: RunConfig,
        suite: TaskSource,
        source: PolicySource,
        backend: SandboxBackend,
        store: TraceStore,
        budget: Budget,
        on_done: Callable[[Trace], None],
        workers: Workers | None = None,
    ) -> None:
        self._config, self._suite, self._source, self._backend = config, suite, source, backend
        self._store, self._budget, self._on_done = store, budget, on_done
        self._workers = workers or Workers()
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._errors_in_a_row = 0
        self.outcome = RunOutcome()

    @property
    def over(self) -> bool:
        """No more rollouts will be played: the run was stopped, or its budget is spent."""
        return self._cancelled.is_set() or self._budget.spent

    def cancel(self) -> None:
        """No more rollouts are played."""
        self._cancelled.set()

    def play(self, jobs: Sequence[Job], workers: int) -> RunOutcome:
        """Play rollouts; may be called again with more.

        An interruption ends the rollouts in flight as unscored and is noted; PolicyRefused, Diverged and
        bugs are raised once the other threads have ended.
        """
        if self.over:
            self.outcome.not_started += len(jobs)
            return self.outcome
        futures: list[Future[None]] = []
        with ThreadPoolExecutor(workers, thread_name_prefix="rollout") as pool:
            try:
                self._prepare(jobs)
                futures += [pool.submit(self._one, job) for job in jobs]
                wait(futures, return_when=FIRST_EXCEPTION)
                self._raise_first(futures)
            except BaseException as error:
                self._cancelled.set()
                self.outcome.not_started += sum(future.cancel() for future in futures)
                self.outcome.interrupted = isinstance(error, KeyboardInterrupt)
                if not self.outcome.interrupted:
                    raise
                self._source.close()  # end the model calls and the test runs that are under way
                self._backend.close()
        return self.outcome

    def _prepare(self, jobs: Sequence[Job]) -> None:
        """Tell the backend what will be opened: a sandbox a rollout for the score, and one for the runs before."""
        each = {TestPolicy.ON_WRITE: 2, TestPolicy.FINAL: 1, TestPolicy.NEVER: 0}[self._config.test_policy]
        kinds = Counter((job.task.resources, job.task.image) for job in jobs if each and not job.draw_only)
        for (resources, image), rollouts in kinds.items():
            self._backend.prepare(resources, image, each * rollouts)

    @staticmethod
    def _raise_first(futures: list[Future[None]]) -> None:
        for future in futures:
            if future.done() and (error := future.exception()):
                raise error

    def _one(self, job: Job) -> None:
        if self.over:
            with self._lock:
                self.outcome.not_started += 1
            return
        try:
            with self._workers.on(job.rollout):
                trace = self._played(job)
        except BaseException:
            self._cancelled.set()  # before this thread takes another rollout
            raise
        with self._lock:
            self._count(trace)
            self._on_done(trace)

    def _played(self, job: Job) -> Trace:
        there = job.taken_up if job.taken_up and job.taken_up.header.rollout == job.rollout else None
        header = there.header if there else self._header(job)
        recorder = self._store.recorder(header, job.taken_up)
        past = recorder.past
        watched = self._workers.watched(recorder, job.rollout, len(past.steps), past.pending is not None)
        if job.draw_only and job.taken_up:
            draw(self._source.policy(job.task, job.index), job.taken_up, header.sampling, watched)
            return recorder.trace
        limits = RolloutLimits(self._config.max_iters, self._config.stop_on_loop)
        with self._suite.environment(job.task, self._backend, self._config.test_policy) as environment:
            policy = self._source.policy(job.task, job.index)
            rollout(policy, environment, limits, header.sampling, watched, self._cancelled, past)
        return recorder.trace

    def _header(self, job: Job) -> Header:
        config = self._config
        seed = derived_seed(config.seed, job.task.id, job.index, *([job.name] if job.name else []))
        return Header(
            rollout=job.rollout,
            task=job.task.id,
            suite=config.suite,
            suite_version=config.suite_version,
            split=self._suite.split_of(job.task),
            index=job.index,
            fork=job.fork,
            policy=config.policy,
            model=config.model,
            engine=self._source.info.engine,
            oracle=config.oracle,
            sampling=Sampling(temperature=config.temperature, max_tokens=config.max_tokens, seed=seed),
            test_policy=config.test_policy,
            sandbox=config.sandbox,
            isolation=config.isolation,
            expected_tests=job.task.expected_tests,
            raw_prompt=job.task.raw_prompt,
        )

    def _count(self, trace: Trace) -> None:
        self.outcome.played += 1
        self.outcome.failed += trace.stop is StopReason.ERROR
        self._errors_in_a_row = self._errors_in_a_row + 1 if trace.stop is StopReason.ERROR else 0
        if self._errors_in_a_row >= MAX_ERRORS_IN_A_ROW and not self._cancelled.is_set():
            self.outcome.stopped = f"{self._errors_in_a_row} rollouts in a row failed: {trace.error}"
            self._cancelled.set()
