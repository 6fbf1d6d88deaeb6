"""A suite proves itself without a model: every reference must score 1, and doing nothing must score 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from harness.grading import run_scoring
from harness.records import Task, TestReport
from sandboxes.base import SandboxBackend, SandboxError
from sandboxes.workspace import Workspace
from suites.base import Suite


@dataclass(frozen=True)
class Validation:
    """What one task showed. A value is None where the sandbox failed or there is no reference."""

    task: str
    tests: int
    reference: float | None
    nothing: float | None
    buggy_passed: int
    unexpected: tuple[str, ...]
    """Tests that the reference run reported as passed, though the task does not expect them."""
    seconds: float
    error: str = ""

    @property
    def valid(self) -> bool:
        return self.reference == 1.0 and self.nothing == 0.0 and not self.unexpected


def validate(
    suite: Suite, backend: SandboxBackend, tasks: Sequence[Task], workers: int, on_done: Callable[[Validation], None]
) -> list[Validation]:
    """Validate tasks, in their order; `on_done` is told of each as it ends."""

    def one(task: Task) -> Validation:
        result = _validate(suite, backend, task)
        on_done(result)
        return result

    for task in tasks:
        backend.prepare(task.resources, task.image, 2)
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, tasks))


def _validate(suite: Suite, backend: SandboxBackend, task: Task) -> Validation:
    fixed = suite.reference(task)
    if fixed is None:
        return Validation(task.id, len(task.expected_tests), None, None, 0, (), 0.0, "no reference")
    try:
        reference, fixed_report = _graded(backend, task, fixed)
        nothing, buggy_report = _graded(backend, task, task.tree)
    except SandboxError as error:
        return Validation(task.id, len(task.expected_tests), None, None, 0, (), 0.0, str(error))
    passed = {test for test, outcome in fixed_report.outcomes.items() if outcome == "passed"}
    return Validation(
        task.id,
        len(task.expected_tests),
        reference,
        nothing,
        buggy_report.count_passed,
        tuple(sorted(passed - set(task.expected_tests))),
        fixed_report.seconds + buggy_report.seconds,
    )


def _graded(backend: SandboxBackend, task: Task, tree: Workspace) -> tuple[float | None, TestReport]:
    with backend.open(task.resources, task.image) as sandbox:
        score, report = run_scoring(task, tree, sandbox)
    return score.value, report
