"""A round of GRPO: tasks are dealt, each is played several times by the gym's own rollout, and every rollout is stored
like any other, under RUN/traces.

A rollout's index there is (optimizer steps before its round) x (rollouts of a group) + (its place in the group).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.budget import Budget
from harness.errors import InfrastructureError
from harness.progress import progress_view, seldom
from harness.progress_log import ProgressLog
from harness.progress_workers import Workers
from harness.records import Score, StopReason, Task, Trace
from harness.run import Job, Run
from harness.run_files import RUN_FILE, RunConfig, claim_directory
from harness.trace_store import TRACES, TraceStore
from sandboxes.base import SandboxBackend
from suites.base import SubsetSuite, Suite
from suites.gsm8k.suite import QuestionSuite
from trainers.card import atomic_file
from trainers.grpo_curriculum import TaskOrder
from trainers.grpo_episodes import EpisodePolicy, EpisodeSource, EpisodeTokens
from trainers.grpo_settings import GrpoSettings
from trainers.rewards import Asked, Outcome, rewarded

TRACE_DIRECTORY = "traces"


@dataclass(frozen=True)
class Played:
    """A rollout as it is trained on."""

    trace: Trace
    tokens: EpisodeTokens
    outcome: Outcome
    truncated: bool
    """A limit of tokens ended it: of its last completion, or of the conversation. One that ended on a tool result, by
    its limit of turns, is whole."""


class Rounds:
    """Plays rounds of rollouts.

    Args:
        tasks: at least as many as a round takes.
        directory: the traces' own, which holds a run already where a training is resumed.
    """

    def __init__(
        self,
        settings: GrpoSettings,
        config: RunConfig,
        suite: Suite,
        tasks: Sequence[Task],
        source: EpisodeSource,
        backend: SandboxBackend,
        directory: Path,
        workers: int,
    ) -> None:
        self._settings, self._suite, self._source, self._workers = settings, suite, source, workers
        self._tasks = {task.id: task for task in tasks}
        self.order = TaskOrder(list(self._tasks), settings.seed, settings.curriculum)
        self._store = TraceStore(directory)
        self._traces: dict[str, Trace] = {}
        self.log: ProgressLog | None = None
        """The training's, which is told of the rollouts too."""
        self.workers = Workers()
        self._run = Run(config, suite, source, backend, self._store, Budget(), self._keep, self.workers)
        self.seconds = 0.0
        """That the last round took."""

    def _keep(self, trace: Trace) -> None:
        self._traces[trace.header.rollout] = trace
        value = trace.score.value if trace.score else None
        said = f"{trace.header.rollout} {trace.stop}, {len(trace.steps)} steps"
        self._view.done(said, None if value is None else value == 1)

    def play(self, step: int) -> list[list[Played]]:
        """The groups of a round, after so many optimizer steps.

        Raises:
            InfrastructureError: too many rollouts in a row failed.
            KeyboardInterrupt: it was interrupted.
        """
        began, size = time.monotonic(), self._settings.num_generations
        tasks = [self._tasks[name] for name in self.order.deal(self._settings.prompts_per_step)]
        jobs = [Job(task, step * size + place) for task in tasks for place in range(size)]
        self._view = progress_view(
            len(jobs), what=f"rollouts of step {step + 1}", log=self.log, workers=self.workers, screen=seldom
        )
        with self._view:
            outcome = self._run.play(jobs, min(self._workers, len(jobs)))
        if outcome.interrupted:
            raise KeyboardInterrupt
        if outcome.stopped:
            raise InfrastructureError(outcome.stopped)
        played = [self._played(job) for job in jobs]
        groups = [played[start : start + size] for start in range(0, len(played), size)]
        for task, group in zip(tasks, groups, strict=True):
            self.order.learn(task.id, [each.outcome.score.value for each in group])
        self.seconds = time.monotonic() - began
        return groups

    def _played(self, job: Job) -> Played:
        trace, policy = self._traces.pop(job.rollout), self._source.collect(job.task, job.index)
        score = trace.score or Score(value=None, why="it did not end")
        text = trace.steps[-1].completion.text if trace.steps else ""
        truncated, tokens = _truncated(trace, policy), policy.tokens()
        left_out = score.value is None or (truncated and self._settings.truncated == "mask")
        return Played(trace, tokens.masked() if left_out else tokens, Outcome(text, score, self._asked(job)), truncated)

    def _asked(self, job: Job) -> Asked | None:
        asked = questions_of(self._suite)
        return Asked(asked.by_id[job.task.id].gold, asked.form) if asked else None

    def close(self) -> None:
        self._store.close()


def questions_of(suite: Suite) -> QuestionSuite | None:
    """The suite, or what it is a part of, where that consists of questions."""
    whole = suite.whole if isinstance(suite, SubsetSuite) else suite
    return whole if isinstance(whole, QuestionSuite) else None


def _truncated(trace: Trace, policy: EpisodePolicy) -> bool:
    return trace.stop is StopReason.CONTEXT_FULL or (bool(policy.turns) and policy.turns[-1].cut_off)


def round_metrics(groups: Sequence[Sequence[Played]], weights: Mapping[str, float]) -> dict[str, float]:
    """What is logged of a round beside what TRL logs."""
    played = [each for group in groups for each in group]
    scores = [each.outcome.score.value for each in played if each.outcome.score.value is not None]
    turns = [len(each.trace.steps) for each in played]
    return {
        "rollouts/solved": sum(score == 1 for score in scores) / max(1, len(scores)),
        "rollouts/unscored": len(played) - len(scores),
        "rollouts/truncated": sum(each.truncated for each in played) / len(played),
        "rollouts/turns": sum(turns) / len(turns),
        "groups/without_signal": sum(not _has_signal(group, weights) for group in groups),
        "seconds/grading": sum(map(_grading_seconds, played)),
    }


def _has_signal(group: Sequence[Played], weights: Mapping[str, float]) -> bool:
    """Two of its rollouts are told apart by what is trained on."""
    totals = {
        round(sum(weight * (rewarded(each.outcome, name) or 0.0) for name, weight in weights.items()), 9)
        for each in group
        if each.outcome.score.value is not None
    }
    return len(totals) > 1


def without_signal(rounds: Sequence[Mapping[str, float]], groups_of_a_round: int) -> str:
    """A warning where no group of a whole training had a signal; empty where some had."""
    if any(line.get("groups/without_signal", 0) < groups_of_a_round for line in rounds):
        return ""
    return (
        "WARNING: in no group did rollouts earn different rewards: nothing was learnt from them. Begin with a model "
        "that solves some of the tasks, or take easier tasks, a longer --max-tokens or more --num-generations"
    )


def _grading_seconds(played: Played) -> float:
    """Of its test runs; those of different rollouts overlap."""
    return played.trace.score_seconds + sum(step.test_seconds for step in played.trace.steps)


def open_traces(directory: Path, config: RunConfig, about: dict[str, object], first_index: int) -> None:
    """Make the directory of traces, or take up the one that is there without the rollouts from an index on: they were
    played after the checkpoint that the training goes on from, and are played again. From index 0 on nothing is left,
    and the settings may be others.
    """
    if not first_index:
        for name in (RUN_FILE, TRACES):
            (directory / name).unlink(missing_ok=True)
    claim_directory(directory, config, about, resume=True)
    if (directory / TRACES).exists():
        with (directory / TRACES).open("rb") as there, atomic_file(directory / TRACES) as kept:
            kept.writelines(line for line in there if line.endswith(b"\n") and _index(line) < first_index)


def _index(line: bytes) -> int:
    event = json.loads(line)
    rollout: str = event["header"]["rollout"] if "header" in event else event["rollout"]
    return int(rollout.rpartition("#")[2])
