"""Questions answered by a model into a run directory, so that a later command takes up what an earlier one has left."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.budget import Budget
from harness.errors import UsageError
from harness.policies.litellm_policy import ServiceSettings
from harness.policies.sources import LocalSettings, load_source
from harness.policy import PolicySource
from harness.progress import ProgressView, notice, progress_view
from harness.progress_log import ProgressLog
from harness.records import Task, TestPolicy, Trace
from harness.run import Job, Run, RunOutcome
from harness.run_files import RunConfig
from harness.trace_store import TraceStore
from suites.gsm8k.environment import PARTS
from suites.gsm8k.suite import QuestionSuite
from suites.opening import open_for
from suites.run_cli import Stage, exit_code, in_order, left_to_do, local_extra, model_extra
from trainers.gsm8k.device_memory import refuse_too_large
from trainers.gsm8k.settings import Gsm8kSettings, refuse_unfinished, save_config

REQUEST_TIMEOUT_S, ATTEMPTS = 300.0, 5
"""Of a call of a service."""


@dataclass(frozen=True)
class Speaker:
    """Who answers, and how."""

    model: str
    settings: Gsm8kSettings
    temperature: float

    @property
    def local(self) -> LocalSettings:
        """What of the settings the engine takes."""
        if self.settings.api_base:
            return LocalSettings(num_workers=self.settings.batch_size)
        engine, fallback = self.settings.engine, self.settings.engine == "vllm" and self.settings.fallback
        hf = engine == "hf" or fallback
        return LocalSettings(
            device=self.settings.device if hf else "",
            dtype=self.settings.dtype if engine in ("hf", "vllm") else "",
            hf_batch_size=self.settings.batch_size if hf else None,
            fallback="hf" if fallback else "",
            num_workers=self.settings.batch_size,
        )

    def source(self, budget: Budget) -> PolicySource:
        """Raises UsageError where the model or its engine is not there, or the model is too large for this machine."""
        if self.settings.engine in ("hf", "vllm") and not self.settings.api_base:
            refuse_too_large(self.model, self.settings.device, self.settings.dtype)
        service = ServiceSettings(self.settings.api_base, REQUEST_TIMEOUT_S, ATTEMPTS)
        return load_source(self.settings.engine, self.model, service, budget, lambda task: None, self.local)


@dataclass(frozen=True)
class Sample:
    """One response to a question, graded."""

    question: str
    """Its id."""
    attempt: int
    text: str
    parts: Mapping[str, float]
    """Those of suites.gsm8k.environment: 0 or 1 each."""
    stop: str
    """How the response ended: stop, length, or why there is none."""
    tokens: int

    @property
    def right(self) -> bool:
        return self.parts["correct"] == 1

    @property
    def reasoned(self) -> bool:
        return self.parts["thinking"] == 1


def sample_of(trace: Trace) -> Sample:
    """Of a rollout that is over."""
    said = trace.steps[-1].completion if trace.steps else None
    parts = dict(trace.score.parts) if trace.score else {}
    return Sample(
        trace.header.task,
        trace.header.index,
        said.text if said else "",
        {name: parts.get(name, 0.0) for name in PARTS},
        str(said.finish_reason if said else trace.stop),
        (said.usage.completion_tokens or 0) if said else 0,
    )


def absolute(model: str) -> str:
    """A model's directory by its absolute path, so that a run is the same from anywhere; a name as it is.

    Raises UsageError for the directory of a stage that has not ended.
    """
    refuse_unfinished(model)
    return str(Path(model).resolve()) if Path(model).is_dir() else model


@contextmanager
def opened(suite: QuestionSuite, speaker: Speaker, rollouts: int = 1) -> Iterator[Stage]:
    """A run of the questions, with the model loaded. Raises UsageError where it cannot be."""
    tasks, budget = list(suite.tasks()), Budget(None, None)
    if not tasks:
        raise UsageError(f"{suite.name}: no question is chosen")
    with closing(speaker.source(budget)) as source:
        backend, notices = open_for(tasks, "auto")
        with in_order(backend):
            config = RunConfig(
                suite=suite.name,
                suite_version=suite.version,
                tasks=tuple(task.id for task in tasks),
                policy=source.info.name,
                model=source.info.model,
                oracle=source.info.oracle,
                test_policy=TestPolicy.FINAL,
                tool_protocol="none",
                sandbox=backend.name,
                isolation=backend.isolation,
                max_iters=1,
                rollouts=rollouts,
                seed=speaker.settings.seed,
                temperature=speaker.temperature,
                max_tokens=speaker.settings.max_tokens,
                stop_on_loop=False,
                extra=local_extra(speaker.local) | model_extra(source.info),
            )
            notices = [*source.info.notices, *notices]
            yield Stage(suite, tasks, tasks, source, backend, budget, notices, config, uses_cache=False)


def run_id(stage: Stage) -> str:
    """Tells runs with other settings, models or questions apart; the same ones have the same."""
    return hashlib.sha256(stage.config.model_dump_json().encode()).hexdigest()[:8]


class Play:
    """Plays questions of a run, and knows the samples that its directory has from before; to be closed.

    Args:
        resume: go on where a run of the same configuration was left.

    Raises:
        UsageError: the directory holds a run that is not to be continued.
    """

    def __init__(self, stage: Stage, directory: Path, settings: Gsm8kSettings, resume: bool) -> None:
        self.stage, self.directory, self._workers = stage, directory, settings.batch_size
        self.samples: dict[tuple[str, int], Sample] = {}
        """By question and attempt."""
        self.outcome = RunOutcome()
        for line in stage.notices:
            notice(line)
        stage.claim(directory, resume)
        save_config(directory, settings)
        self._store = TraceStore(directory)

    @property
    def exit_code(self) -> int:
        """0 where everything that was asked was answered; see suites.run_cli.exit_code, and 3 where some was not."""
        return exit_code(self.outcome) or (3 if self.outcome.failed else 0)

    def ask(self, attempts: Iterable[tuple[Task, int]]) -> bool:
        """Play the attempts that are not over yet; whether all are over now."""
        jobs = [Job(task, index) for task, index in attempts]
        left = left_to_do(self.stage, self.directory, jobs, self._keep)
        if len(left) < len(jobs):
            notice(f"{len(jobs) - len(left)} of {len(jobs)} responses were there before")
        if left:
            missing = {job.rollout for job in left}
            before = [self.samples[job.task.id, job.index].right for job in jobs if job.rollout not in missing]
            self._play(left, (len(before), sum(before)))
        return self.exit_code == 0

    def _play(self, jobs: Sequence[Job], before: tuple[int, int]) -> None:
        stage = self.stage
        parts = stage.config, stage.suite, stage.source, stage.backend, self._store, stage.budget
        with (
            ProgressLog(self.directory, notice) as log,
            progress_view(len(jobs), "right", "questions", log, stage.budget, before) as progress,
        ):
            run = Run(*parts, on_done=lambda trace: self._told(trace, progress), workers=progress.workers)
            self.outcome = run.play(jobs, self._workers)
            log.leave(*self.outcome.left)
        if self.outcome.stopped:
            notice(self.outcome.stopped)

    def _told(self, trace: Trace, progress: ProgressView) -> None:
        if not trace.finished:
            progress.done(f"{trace.header.rollout} {trace.error or trace.stop}", None)
            return
        sample = sample_of(trace)
        self._keep(trace)
        said = "right" if sample.right else "wrong" if sample.parts["answered"] else "no answer"
        progress.done(f"{trace.header.rollout} {said}, {sample.tokens} tokens", sample.right)

    def _keep(self, trace: Trace) -> None:
        sample = sample_of(trace)
        self.samples[sample.question, sample.attempt] = sample

    def close(self) -> None:
        self._store.close()
