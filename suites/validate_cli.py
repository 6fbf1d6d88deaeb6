"""`repo-agent suites validate`: run every reference, and every task as it is, and say which tasks can be used."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.table import Table
from rich.text import Text

from harness.cli import add_sandbox_flags, at_least
from harness.errors import UsageError
from harness.progress import console, notice, progress_view
from harness.records import Task
from sandboxes.base import Isolation, SandboxBackend
from suites.base import Suite
from suites.bugsinpy.status import BugStatus, State, user_status_file, write_status
from suites.bugsinpy.suite import BugsinpySuite
from suites.bugsinpy.validation import bug_states, states_without_runs
from suites.gsm8k.loading import question_suite
from suites.gsm8k.validation import validated as validated_question
from suites.opening import open_for
from suites.validate import Validation, validate


def add_validate_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--limit", type=at_least(1), help="only the first N tasks")
    command.add_argument("--repeat", type=at_least(1), help="runs of each tree (default: 1; 2 for bugsinpy)")
    command.add_argument("--json", type=Path, help="write what was seen of each task there")
    command.add_argument("--status", type=Path, help="bugsinpy: the status file (default: in the cache)")
    add_sandbox_flags(command)


def run_validation(suite: Suite, args: argparse.Namespace) -> int:
    """The exit code: 1 where a task is not valid; for BugsInPy, where one has no state."""
    if args.json and args.json.is_dir():
        raise UsageError(f"--json {args.json} is a directory")
    if isinstance(suite, BugsinpySuite):
        return _validate_bugs(suite, args)
    tasks = list(suite.tasks())[: args.limit]
    if questions := question_suite(suite):
        seen = [validated_question(questions, task) for task in tasks]
        return _concluded(suite, "", seen, [each for each in seen if not each.valid], args.json)
    unprepared = suite.prepare(tasks, args.num_workers, notice)
    tasks = [task for task in tasks if task.id not in unprepared]
    results = [Validation(task, error=why) for task, why in unprepared.items()]
    with _backend(args, tasks) as backend, progress_view(len(tasks), "valid") as progress:
        results += validate(
            suite, backend, tasks, args.num_workers, lambda done: progress.done(done.task, done.valid), args.repeat or 1
        )
    return _concluded(suite, f" in {backend.name}", results, results, args.json)


def _concluded(
    suite: Suite, where: str, results: Sequence[Validation], shown: Sequence[Validation], json_file: Path | None
) -> int:
    """Say what it came to, of some in detail; the exit code."""
    if shown:
        _print_validation(suite, where, shown)
    solved = sum(result.reference == 1.0 for result in results)
    idle = sum(result.nothing == 1.0 for result in results)
    print(f"reference: {solved} of {len(results)} score 1; do-nothing: {idle} of {len(results)} score 1")
    _write_json(json_file, results)
    return 0 if all(result.valid for result in results) else 1


@contextmanager
def _backend(args: argparse.Namespace, tasks: Sequence[Task]) -> Iterator[SandboxBackend]:
    isolation = Isolation(args.isolation)
    backend, notices = open_for(tasks, args.sandbox, args.base_image, True, isolation, args.num_workers)
    for line in notices:
        notice(line)
    try:
        yield backend
    finally:
        backend.close()


def _validate_bugs(suite: BugsinpySuite, args: argparse.Namespace) -> int:
    """Each bug's state is written when it is known: an interruption loses only those under way."""
    file = args.status or user_status_file(suite.data_set[1])
    tasks = list(suite.candidates())[: args.limit]
    usable = [task for task in tasks if not suite.bugs[task.id].compiles]
    unprepared = suite.prepare(usable, args.num_workers, notice)
    states = states_without_runs(suite, unprepared)
    write_status(file, states)
    seen: list[Validation] = []
    usable = [task for task in usable if task.id not in unprepared]
    with progress_view(len(usable), "reproduced") as progress:

        def done(status: BugStatus | None, validation: Validation) -> None:
            seen.append(validation)
            if status:
                states[status.bug] = status
                write_status(file, {status.bug: status})
            progress.done(validation.task, status is not None and status.state is State.REPRODUCED)

        if usable:
            with _backend(args, usable) as backend:
                bug_states(suite, backend, usable, args.num_workers, args.repeat or 2, done)
    _print_states(suite, states, seen)
    _write_json(args.json, seen, states)
    print(f"states written to {file}")
    return 0 if all(validation.repeats for validation in seen) else 1


def _print_states(suite: BugsinpySuite, states: dict[str, BugStatus], seen: Sequence[Validation]) -> None:
    table = Table("bug", "state", "tests", "failing", "quarantined", "run s", "", title=Text(suite.name))
    for bug in [*suite.bugs, *suite.unreadable]:
        status = states.get(bug)
        if status:
            counts = [str(len(each)) for each in (status.expected, status.failing, status.quarantined)]
            known = suite.status.get(bug)
            new = f" (was {known.state})" if known and known.state is not status.state else ""
            table.add_row(bug, f"{status.state}{new}", *counts, f"{status.run_s:g}", Text(status.why))
    for validation in seen:
        if not validation.repeats:
            table.add_row(validation.task, "not known", "", "", "", "", Text(validation.error))
    console().print(table)
    totals = Counter(str(status.state) for status in states.values())
    print(f"{len(states)} bugs: " + ", ".join(f"{count} {state}" for state, count in totals.most_common()))


def _write_json(path: Path | None, seen: Sequence[Validation], states: dict[str, BugStatus] | None = None) -> None:
    if path is None:
        return
    content: dict[str, object] = {"tasks": [asdict(each) | {"valid": each.valid} for each in seen]}
    if states is not None:
        content["states"] = [status.model_dump(mode="json") for status in states.values()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _print_validation(suite: Suite, where: str, results: Sequence[Validation]) -> None:
    table = Table("task", "tests", "passing before", "reference", "do nothing", "", title=Text(f"{suite.name}{where}"))
    for result in results:
        said = result.error or (f"not expected: {result.unexpected[0]}" if result.unexpected else "")
        verdict = "ok" if result.valid else f"INVALID {said}"
        tests = str(len(result.expected))
        before = f"{result.buggy_passed} of {tests}"
        table.add_row(result.task, tests, before, str(result.reference), str(result.nothing), Text(verdict))
    console().print(table)
