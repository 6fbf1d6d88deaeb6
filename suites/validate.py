"""A suite proves itself without a model: every reference must score 1, and doing nothing must score 0, each time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

from harness.errors import UsageError
from harness.grading import graded_tree, report_of, scoring_command
from harness.records import Task, TestReport
from sandboxes.base import SandboxBackend, SandboxError
from sandboxes.workspace import Workspace
from suites.base import Suite

Result = TypeVar("Result")
MESSAGES, MESSAGE_CHARS = 100, 1200


@dataclass(frozen=True)
class Runs:
    """The runs of one tree."""

    reports: tuple[TestReport, ...]
    slowest_s: float
    """Seconds of the slowest test, over all runs."""
    ignored: tuple[str, ...]
    """Edits that the task does not allow: they were left out."""

    @property
    def seen(self) -> set[str]:
        return {test for report in self.reports for test in report.outcomes}

    @property
    def always_passed(self) -> set[str]:
        return {test for test in self.seen if all(report.outcomes.get(test) == "passed" for report in self.reports)}

    @property
    def unsteady(self) -> set[str]:
        """Tests whose outcome was not always the same; in a run that was cut off a missing one says nothing."""
        whole = [report for report in self.reports if not report.timed_out]
        return {test for test in self.seen if len({report.outcomes.get(test) for report in whole}) > 1}

    @property
    def troubled(self) -> str:
        """Why a run cannot be trusted; empty where all can."""
        bent = [report.tampered for report in self.reports if report.tampered]
        over = any(report.timed_out for report in self.reports)
        return bent[0] if bent else "the run went over its limits" if over else ""


@dataclass(frozen=True)
class Validation:
    """What one task showed. A value is None where the sandbox failed or there is no reference."""

    task: str
    reference: float | None = None
    """The worst score of the reference."""
    nothing: float | None = None
    """The best score of doing nothing."""
    expected: tuple[str, ...] = ()
    """Tests that the task expects, or, where it has none recorded, those that passed on the reference each time; none
    where its runs cannot be trusted."""
    failing: tuple[str, ...] = ()
    """Expected tests that never passed on the task's own tree."""
    buggy_passed: int = 0
    unexpected: tuple[str, ...] = ()
    """Tests that the reference passes each time, though the task does not expect them."""
    unsteady: tuple[str, ...] = ()
    """Expected tests that passed on the task's own tree at times, and at times did not."""
    quarantined: tuple[str, ...] = ()
    """Tests whose outcome on the reference was not always the same."""
    messages: dict[str, str] = field(default_factory=dict)
    """How the first failing tests fail; where the reference fails, how that does."""
    run_s: float = 0.0
    slowest_s: float = 0.0
    seconds: float = 0.0
    repeats: int = 0
    error: str = ""

    @property
    def valid(self) -> bool:
        return self.reference == 1.0 and self.nothing == 0.0 and not self.unexpected and bool(self.failing)


def validate(
    suite: Suite,
    backend: SandboxBackend,
    tasks: Sequence[Task],
    workers: int,
    on_done: Callable[[Validation], None],
    repeats: int = 1,
) -> list[Validation]:
    """Validate tasks, in their order; `on_done` is told of each as it ends."""

    def one(task: Task) -> Validation:
        result = validated(suite, backend, task, repeats)
        on_done(result)
        return result

    for task in tasks:
        backend.prepare(task.resources, task.image, 2 * repeats)
    return in_threads(one, tasks, workers, backend)


def in_threads(
    work: Callable[[Task], Result], tasks: Sequence[Task], workers: int, backend: SandboxBackend
) -> list[Result]:
    """The results in the tasks' order. What is raised, an interruption too, ends what is under way in the backend."""
    with ThreadPoolExecutor(workers) as pool:
        try:
            return list(pool.map(work, tasks))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            backend.close()
            raise


def validated(suite: Suite, backend: SandboxBackend, task: Task, repeats: int = 1) -> Validation:
    """Run a task's reference and its own tree, each so many times, each in a sandbox of its own."""
    try:
        reference = suite.reference(task)
        if reference is None:
            return Validation(task.id, error="no reference")
        fixed = _runs(backend, task, reference, repeats)
        expected = set(task.expected_tests) or (set() if fixed.troubled else fixed.always_passed)
        task = replace(task, expected_tests=tuple(sorted(expected)))
        alone = _runs(backend, task, reference, 1) if task.only_expected and fixed.seen - expected else None
        if alone:  # without the others: is it still so?
            task = replace(task, expected_tests=tuple(sorted(expected & alone.always_passed)))
        buggy = _runs(backend, task, task.tree, repeats)
    except (SandboxError, UsageError) as error:
        return Validation(task.id, error=str(error))
    return _seen(task, fixed, buggy, repeats)


def _runs(backend: SandboxBackend, task: Task, tree: Workspace, repeats: int) -> Runs:
    graded, ignored = graded_tree(task, tree)
    results = []
    for _ in range(repeats):
        with backend.open(task.resources, task.image) as sandbox:
            results.append(sandbox.run(graded, scoring_command(task)))
    slowest_s = max((record.seconds for result in results for record in result.records), default=0.0)
    return Runs(tuple(report_of(task, result) for result in results), slowest_s, ignored)


def _seen(task: Task, fixed: Runs, buggy: Runs, repeats: int) -> Validation:
    expected = set(task.expected_tests)
    ever_passed = {test for report in buggy.reports for test, outcome in report.outcomes.items() if outcome == "passed"}
    failing = tuple(sorted(expected - ever_passed))
    reports = [*fixed.reports, *buggy.reports]
    return Validation(
        task=task.id,
        reference=min(_value(report, expected) for report in fixed.reports),
        nothing=max(_value(report, expected) for report in buggy.reports),
        expected=task.expected_tests,
        failing=failing,
        buggy_passed=len(expected & ever_passed),
        unexpected=tuple(sorted(fixed.always_passed - expected)),
        unsteady=tuple(sorted(expected & ever_passed - buggy.always_passed)),
        quarantined=tuple(sorted(fixed.unsteady)),
        messages=_messages(buggy, failing) if failing else _messages(fixed, sorted(fixed.seen - fixed.always_passed)),
        run_s=round(max(report.seconds for report in fixed.reports), 1),
        slowest_s=round(fixed.slowest_s, 1),
        seconds=sum(report.seconds for report in reports),
        repeats=repeats,
        error=fixed.troubled or _left_out(fixed),
    )


def _left_out(fixed: Runs) -> str:
    return f"the repair changes what may not be edited: {', '.join(fixed.ignored)}" if fixed.ignored else ""


def _value(report: TestReport, expected: set[str]) -> float:
    passed = all(report.outcomes.get(test) == "passed" for test in expected)
    return 1.0 if expected and passed and not report.tampered else 0.0


def _messages(runs: Runs, tests: Sequence[str]) -> dict[str, str]:
    """How the tests ended in the first run; where a file could not be collected, how that failed."""
    report = runs.reports[0]
    said = {test: report.messages[test] for test in tests if report.messages.get(test)} or report.messages
    if not said and report.output_tail:
        said = {"": report.output_tail}
    return {test: text[-MESSAGE_CHARS:] for test, text in list(said.items())[:MESSAGES]}
