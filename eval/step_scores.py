"""Stored trees graded off-line: the final tree of a rollout, or every tree on its way.

The grade is the one that scores rollouts: every expected test on the pristine tree under the allowed edits, in a fresh
sandbox, with canaries. Nothing but the trace is needed; see harness.trees for how its trees are made again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

from eval.metrics import Curve, curve
from harness.environment import Environment, RepoEnvironment
from harness.errors import INFRASTRUCTURE, Diverged
from harness.records import Rescore, Score, StepScore, Task, TestPolicy, Trace
from harness.trees import carried_trees, final_tree, trees
from sandboxes.base import SandboxBackend
from sandboxes.workspace import Workspace
from tools.files import FileState

KEPT_SCORES = 10_000


class TreeGrader:
    """Grades trees by one version of a suite; safe to use from several threads.

    A tree of a task that was graded is not graded again, as long as it is among the last KEPT_SCORES.
    """

    def __init__(self, tasks: dict[str, Task], version: str, backend: SandboxBackend) -> None:
        self.tasks, self.version, self.backend = tasks, version, backend
        self._lock = threading.Lock()
        self._scores: dict[tuple[str, str], Future[Score]] = {}

    def carried(self, trace: Trace) -> bool:
        """The trace is of another version of the suite."""
        return trace.header.suite_version != self.version

    def score(self, task: Task, tree: Workspace) -> Score:
        """The grade of a tree. Raises SandboxError, retries included; a fault is not remembered."""
        key, mine = (task.id, tree.digest), Future[Score]()
        with self._lock:
            there = self._scores.setdefault(key, mine)
            if len(self._scores) > KEPT_SCORES:
                del self._scores[next(iter(self._scores))]
        if there is not mine:
            return there.result()
        try:
            with RepoEnvironment(task, self.backend, TestPolicy.FINAL, FileState(tree)) as environment:
                mine.set_result(environment.score())
        except BaseException as error:
            with self._lock:
                self._scores.pop(key, None)
            mine.set_exception(error)
            raise
        return mine.result()


@dataclass(frozen=True)
class Rescored:
    """One rollout graded again, or why it was not."""

    rollout: str
    before: Score | None
    """The latest grade by this version of the suite, else the run's own."""
    note: Rescore | None = None
    skipped: str = ""
    """Which kind of rollout it is, where none of it is graded again."""
    diverged: str = ""
    fault: str = ""
    """The infrastructure's."""

    @property
    def changed(self) -> bool:
        return self.note is not None and (self.before.value if self.before else None) != self.note.score.value


def rescored(trace: Trace, grader: TreeGrader) -> Rescored:
    """Grade the final tree of a rollout whose agent was done, of a task that the suite has."""
    rollout, task = trace.header.rollout, grader.tasks[trace.header.task]
    try:
        score = grader.score(task, final_tree(task, trace, grader.carried(trace)))
    except Diverged as error:
        return Rescored(rollout, _before(trace, grader.version), diverged=str(error))
    except INFRASTRUCTURE as fault:
        return Rescored(rollout, _before(trace, grader.version), fault=f"{type(fault).__name__}: {fault}")
    return _noted(trace, score, grader.version, grader.backend)


def rescored_answer(trace: Trace, environment: Environment, version: str, backend: SandboxBackend) -> Rescored:
    """Grade the answer to a question as it is read now, which need not be as it was read then."""
    for step in trace.steps[-1:]:
        environment.step(step.completion)
    return _noted(trace, environment.score(), version, backend)


def _before(trace: Trace, version: str) -> Score | None:
    return trace.grade(version) or trace.grade()


def _noted(trace: Trace, score: Score, version: str, backend: SandboxBackend) -> Rescored:
    note = Rescore(
        rollout=trace.header.rollout,
        suite_version=version,
        sandbox=backend.name,
        isolation=backend.isolation,
        score=score,
    )
    return Rescored(trace.header.rollout, _before(trace, version), note)


@dataclass(frozen=True)
class StepsScored:
    """One rollout whose trees were graded."""

    rollout: str
    noted: int
    """Step scores that are new."""
    curve: Curve
    diverged: str = ""
    fault: str = ""
    """The infrastructure's; the trees after it were not graded."""


def score_steps(trace: Trace, grader: TreeGrader, write: Callable[[StepScore], None]) -> StepsScored:
    """Grade the trees of a rollout that have no step score of this version yet: the task's own, and each after an edit.

    The steps that a fork shares with others are left to those.

    Args:
        write: given each new step score as soon as it is known; one whose `passed` is None where infrastructure failed.
    """
    task, known, fresh = grader.tasks[trace.header.task], trace.step_scores(grader.version), list[StepScore]()
    diverged = fault = ""
    try:
        for step, tree in _edited(trace, task, grader.carried(trace)):
            if step not in known or known[step].passed is None:
                fresh.append(_step_score(trace, step, tree, grader))
                write(fresh[-1])
                if fresh[-1].passed is None:
                    fault = fresh[-1].why
                    break
    except Diverged as error:
        diverged = str(error)
    noted = trace.model_copy(update={"notes": (*trace.notes, *fresh)})
    good = sum(score.passed is not None for score in fresh)
    return StepsScored(trace.header.rollout, good, curve(noted, grader.version), diverged, fault)


def _edited(trace: Trace, task: Task, carried: bool) -> Iterator[tuple[str | None, Workspace]]:
    """The rollout's own steps that changed the tree, by id, with the tree after them."""
    before = ""
    for number, (step, tree) in enumerate((carried_trees if carried else trees)(task, trace)):
        own = number > trace.shared or (step is None and trace.header.fork is None)
        if own and tree.digest != before:
            yield (step.id if step else None), tree
        before = tree.digest


def _step_score(trace: Trace, step: str | None, tree: Workspace, grader: TreeGrader) -> StepScore:
    task = grader.tasks[trace.header.task]
    passed: int | None = None
    try:
        score = grader.score(task, tree)
        passed, why = 0 if score.why.startswith("tampered") else int(score.parts["tests_passed"]), score.why
    except INFRASTRUCTURE as fault:
        why = f"{type(fault).__name__}: {fault}"
    return StepScore(
        rollout=trace.header.rollout,
        step=step,
        suite_version=grader.version,
        digest=tree.digest,
        passed=passed,
        expected=len(task.expected_tests),
        why=why,
    )
