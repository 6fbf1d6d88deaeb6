"""How a tree is graded: the task's own tests on the pristine base, with only the allowed edits over it.

The agent's tree is never graded as it is. Tests and configuration come from the task, the outcome is read test by test,
and canaries (see sandboxes.canaries) tell a report bent from inside.
"""

from __future__ import annotations

from harness.records import Score, Task, TestReport
from sandboxes.base import Command, ExecResult, PytestRun, Sandbox, TestRecord
from sandboxes.workspace import File, Mode, PathError, Workspace

FEEDBACK_FAILURES = 3
"""A feedback run stops after so many failing tests."""
TAIL_CHARS = 2000


def graded_tree(task: Task, tree: Workspace) -> tuple[Workspace, tuple[str, ...]]:
    """The pristine tree under the edits that the task allows, and the paths of the edits that were left out.

    Removing a file is never allowed; a file that is not regular is left out too.
    """
    graded, ignored = task.tree, []
    for path, file in sorted(_changes(task.tree, tree).items()):
        try:
            if file is None or file.mode is Mode.SYMLINK or not task.may_edit(path):
                raise PathError(path)
            graded = graded.write(path, file.content)
        except PathError:
            ignored.append(path)
    return graded, tuple(ignored)


def _changes(old: Workspace, new: Workspace) -> dict[str, File | None]:
    """The files that differ, None for a removed one; only the edits are looked at where both stand on the same base."""
    paths = {*old.edits, *new.edits} if old.base is new.base else {*old.paths, *new.paths}
    now = {path: new.file(path) if path in new else None for path in paths}
    return {path: file for path, file in now.items() if file != (old.file(path) if path in old else None)}


def run_feedback(task: Task, tree: Workspace, sandbox: Sandbox) -> TestReport:
    """The run after a write: tight limits, ends at the first failures, no canaries."""
    cpu_s, only = task.feedback_cpu_s, _only(task)
    run = PytestRun(task.test_args, cpu_s, 5 * cpu_s, max_failures=FEEDBACK_FAILURES, only=only)
    result = sandbox.run(graded_tree(task, tree)[0], Command(run, task.pythonpath, task.env, task.feedback_limits))
    return report_of(task, result, max_failures=FEEDBACK_FAILURES)


def run_scoring(task: Task, tree: Workspace, sandbox: Sandbox) -> tuple[Score, TestReport]:
    """The run that decides: every expected test, the task's limits, canaries, strict equality.

    One expected test over its limit decides it, and ends it there: the tests counted as passed are then a lower bound.
    """
    graded, ignored = graded_tree(task, tree)
    report = report_of(task, sandbox.run(graded, scoring_command(task)))
    return _score(report, ignored), report


def scoring_command(task: Task) -> Command:
    cpu_s = task.test_cpu_s
    expected = task.expected_tests
    run = PytestRun(task.test_args, cpu_s, 5 * cpu_s, decisive=expected, only=_only(task), scoring=True)
    return Command(run, task.pythonpath, task.env, task.limits)


def _only(task: Task) -> tuple[str, ...]:
    return task.expected_tests if task.only_expected else ()


def report_of(task: Task, result: ExecResult, max_failures: int = 0) -> TestReport:
    """A report from what the reporter saw. Every expected test passing without the canaries is no pass."""
    outcomes: dict[str, str] = {}
    messages: dict[str, str] = {}
    for record in result.records:
        outcomes[record.id] = _merged(outcomes.get(record.id), record)
        if record.message and outcomes[record.id] != "passed":
            messages[record.id] = record.message
    complete = all(outcomes.get(test) == "passed" for test in task.expected_tests)
    missing = "a canary is missing" if task.expected_tests and complete and result.canaries_missing else ""
    failures = sum(outcome in ("failed", "error") for outcome in outcomes.values())
    return TestReport(
        outcomes=outcomes,
        expected=task.expected_tests,
        messages=messages,
        seconds=result.wall_s,
        timed_out=result.timed_out,
        stopped_early=bool(max_failures and failures) and any(test not in outcomes for test in task.expected_tests),
        tampered=result.tampered or missing,
        output_tail="" if outcomes else result.output[-TAIL_CHARS:],
        cached=result.cached,
    )


def _merged(before: str | None, record: TestRecord) -> str:
    return record.outcome if before in (None, record.outcome) else "error"


def _score(report: TestReport, ignored: tuple[str, ...]) -> Score:
    parts = {"tests_passed": float(report.count_passed), "tests_expected": float(len(report.expected))}
    if report.passed:
        why = "every expected test passed"
    elif report.tampered:
        why = f"tampered: {report.tampered}"
    elif report.timed_out:
        why = "the test run went over its limits"
    else:
        why = f"{report.count_passed} of {len(report.expected)} expected tests passed"
    return Score(value=1.0 if report.passed else 0.0, why=why, parts=parts, ignored_edits=ignored, cached=report.cached)
