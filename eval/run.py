"""A run: every task of a suite, so many times, by one policy, into one run directory."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from eval.metrics import RolloutMetrics, measure
from harness.budget import Budget
from harness.errors import UsageError
from harness.policy import PolicySource
from harness.records import Header, Record, Sampling, StopReason, Task, TestPolicy
from harness.redaction import Redactor
from harness.rollout import RolloutLimits, derived_seed, rollout
from harness.trace_store import TRACES, TraceStore
from sandboxes.base import Isolation, SandboxBackend
from suites.base import Suite

RUN_FILE, REPORT_FILE = "run.json", "report.json"
MAX_ERRORS_IN_A_ROW = 5
"""So many rollouts in a row that the infrastructure spoilt stop the run."""


class RunConfig(Record):
    """What decides the results of a run. Two runs with equal configurations may be compared or continued."""

    suite: str
    suite_version: str
    tasks: tuple[str, ...]
    policy: str
    model: str
    oracle: bool
    test_policy: TestPolicy
    tool_protocol: str
    sandbox: str
    isolation: Isolation
    max_iters: int
    rollouts: int
    seed: int
    temperature: float
    max_tokens: int
    stop_on_loop: bool


@dataclass
class RunOutcome:
    """What a run gave."""

    rollouts: list[RolloutMetrics] = field(default_factory=list)
    not_started: int = 0
    interrupted: bool = False
    stopped: str = ""
    """Why the run ended before its time, if it did."""


def claim_directory(directory: Path, config: RunConfig, about: dict[str, object]) -> None:
    """Make a run directory and write `run.json`.

    Raises:
        UsageError: the directory cannot be made, or holds a run already; a different configuration is named.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if (directory / RUN_FILE).exists():
            raise UsageError(_occupied(directory, config))
        if (directory / TRACES).exists():
            raise UsageError(f"{directory} holds traces of another program or version: choose another --trace-dir")
        text = json.dumps({"config": config.model_dump(mode="json"), **about}, indent=2)
        (directory / RUN_FILE).write_text(Redactor()(text) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot use trace directory {directory}: {error.strerror}") from error


def _occupied(directory: Path, config: RunConfig) -> str:
    try:
        there = json.loads((directory / RUN_FILE).read_text(encoding="utf-8"))["config"]
        ours = config.model_dump(mode="json")
        different = sorted(key for key in {*there, *ours} if there.get(key) != ours.get(key))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{directory} holds a {RUN_FILE} that cannot be read: choose another --trace-dir"
    if different:
        return (
            f"{directory} belongs to another configuration ({', '.join(different)} differ): choose another --trace-dir"
        )
    return f"{directory} already holds a run of this configuration: choose another --trace-dir"


class Run:
    """Plays the rollouts in threads and keeps their metrics."""

    def __init__(
        self,
        config: RunConfig,
        suite: Suite,
        source: PolicySource,
        backend: SandboxBackend,
        store: TraceStore,
        budget: Budget,
        on_done: Callable[[RolloutMetrics], None],
    ) -> None:
        self._config, self._suite, self._source, self._backend = config, suite, source, backend
        self._store, self._budget, self._on_done = store, budget, on_done
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._errors_in_a_row = 0
        self.outcome = RunOutcome()

    def play(self, jobs: Sequence[tuple[Task, int]], workers: int) -> RunOutcome:
        """Play rollouts, each named by its task and index.

        An interruption ends the rollouts in flight as unscored and is noted; PolicyRefused and
        bugs are raised once the other threads have ended.
        """
        self._prepare(jobs)
        with ThreadPoolExecutor(workers, thread_name_prefix="rollout") as pool:
            futures = [pool.submit(self._one, task, index) for task, index in jobs]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
                self._raise_first(futures)
            except KeyboardInterrupt:
                self.outcome.interrupted = True
            finally:
                self._cancelled.set()
                self.outcome.not_started += sum(future.cancel() for future in futures)
                if self.outcome.interrupted:  # end the model calls and the test runs that are under way
                    self._source.close()
                    self._backend.close()
        self.outcome.rollouts.sort(key=lambda metrics: (metrics.task, metrics.index))
        return self.outcome

    def _prepare(self, jobs: Sequence[tuple[Task, int]]) -> None:
        """Tell the backend what will be opened: a sandbox a rollout for the score, and one for the runs before."""
        each = {TestPolicy.ON_WRITE: 2, TestPolicy.FINAL: 1, TestPolicy.NEVER: 0}[self._config.test_policy]
        kinds = Counter((task.resources, task.image) for task, _ in jobs if each)
        for (resources, image), rollouts in kinds.items():
            self._backend.prepare(resources, image, each * rollouts)

    @staticmethod
    def _raise_first(futures: list[Future[None]]) -> None:
        for future in futures:
            if future.done() and (error := future.exception()):
                raise error

    def _one(self, task: Task, index: int) -> None:
        if self._cancelled.is_set() or self._budget.spent:
            with self._lock:
                self.outcome.not_started += 1
            return
        try:
            metrics = self._played(task, index)
        except BaseException:
            self._cancelled.set()  # before this thread takes another rollout
            raise
        with self._lock:
            self.outcome.rollouts.append(metrics)
            self._watch_errors(metrics)
        self._on_done(metrics)

    def _played(self, task: Task, index: int) -> RolloutMetrics:
        header = self._header(task, index)
        recorder = self._store.recorder(header)
        limits = RolloutLimits(self._config.max_iters, self._config.stop_on_loop)
        with self._suite.environment(task, self._backend, self._config.test_policy) as environment:
            policy = self._source.policy(task, index)
            rollout(policy, environment, limits, header.sampling, recorder, self._cancelled)
        return measure(recorder.trace)

    def _header(self, task: Task, index: int) -> Header:
        config = self._config
        seed = derived_seed(config.seed, task.id, index)
        return Header(
            rollout=f"{task.id}#{index}",
            task=task.id,
            suite=config.suite,
            index=index,
            policy=config.policy,
            sampling=Sampling(temperature=config.temperature, max_tokens=config.max_tokens, seed=seed),
            test_policy=config.test_policy,
            sandbox=config.sandbox,
            isolation=config.isolation,
        )

    def _watch_errors(self, metrics: RolloutMetrics) -> None:
        self._errors_in_a_row = self._errors_in_a_row + 1 if metrics.stop is StopReason.ERROR else 0
        if self._errors_in_a_row >= MAX_ERRORS_IN_A_ROW and not self._cancelled.is_set():
            self.outcome.stopped = f"{self._errors_in_a_row} rollouts in a row failed: {metrics.error}"
            self._cancelled.set()
