"""`repo-agent suites`: list, show, validate and split suites."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.cli import Parser, add_sandbox_flags, add_suite_flags, at_least
from harness.errors import UsageError
from harness.progress import progress_view
from sandboxes.base import Isolation
from sandboxes.choose import open_backend
from suites.base import SUITES, Suite, SuiteFile, load, write_suite_file
from suites.fetch import mirror_directory
from suites.splits import TEST_SIZE, folds, split
from suites.validate import Validation, validate


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="repo-agent suites", description="Look at suites, check them, and split them.")
    commands = made.add_subparsers(dest="command", required=True, parser_class=Parser)
    commands.add_parser("list", help="the suites there are")
    for name, text in (
        ("show", "the tasks of a suite, or one task"),
        ("validate", "run every reference (must score 1) and a do-nothing agent (must score 0)"),
        ("split", "write suite files: all tasks, and train and test parts"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("suite", help="suite name or suite file")
        add_suite_flags(command)
        if name == "show":
            command.add_argument("task", nargs="?", help="a task of it")
        elif name == "validate":
            command.add_argument("--limit", type=at_least(1), help="only the first N tasks")
            add_sandbox_flags(command)
        else:
            size = command.add_mutually_exclusive_group()
            size.add_argument(
                "--test-size", type=int, default=TEST_SIZE, help=f"tasks to test on (default: {TEST_SIZE})"
            )
            size.add_argument("--folds", type=int, help="write so many train and test pairs instead")
            command.add_argument("--out", type=Path, default=Path("."), help="directory for the files (default: here)")
    return made


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    if args.command == "list":
        return _list()
    suite = load(args.suite, mirror_directory(args.mirror))
    if args.command == "show":
        return _show(suite, args.task)
    if args.command == "split":
        return _split(suite, args)
    return _validate(suite, args)


def _list() -> int:
    table = Table("suite", "what it is")
    for name, (text, _) in SUITES.items():
        table.add_row(name, text)
    _console().print(table)
    return 0


def _show(suite: Suite, task_id: str | None) -> int:
    tasks = {task.id: task for task in suite.tasks()}
    if task_id is None:
        table = Table(
            "task", "files", "tests", "may be edited", title=Text(f"{suite.name}, version {suite.version[:12]}")
        )
        for task in tasks.values():
            table.add_row(task.id, str(len(task.tree.paths)), str(len(task.expected_tests)), ", ".join(task.editable))
        _console().print(table)
        return 0
    if task_id not in tasks:
        raise UsageError(f"suite {suite.name} has no task {task_id!r}")
    task = tasks[task_id]
    print(f"{task.id} ({task.suite})\n\n{task.goal}\n\nmay be edited: {', '.join(task.editable)}\nfiles:")
    print("\n".join(f"  {path}" for path in task.tree.paths))
    print("expected tests:\n" + "\n".join(f"  {test}" for test in task.expected_tests))
    return 0


def _split(suite: Suite, args: argparse.Namespace) -> int:
    ids = [task.id for task in suite.tasks()]
    root = suite.tasks()[0].suite
    parts = {"": ids}
    if args.folds is not None:
        for number, (train, test) in enumerate(folds(ids, args.folds), 1):
            parts |= {f"_fold{number}_train": train, f"_fold{number}_test": test}
        made_by = f"repo-agent suites split {suite.name} --folds {args.folds}"
    else:
        train, test = split(ids, args.test_size)
        parts |= {"_train": train, "_test": test}
        made_by = f"repo-agent suites split {suite.name} --test-size {args.test_size}"
    for part, chosen in parts.items():
        name = f"{suite.name}{part}_suite"
        content = SuiteFile(name=name, suite=root, version=suite.version, tasks=tuple(chosen), made_by=made_by)
        write_suite_file(args.out / f"{name}.json", content)
        print(f"{args.out / name}.json: {len(chosen)} tasks")
    return 0


def _validate(suite: Suite, args: argparse.Namespace) -> int:
    backend, notices = open_backend(
        args.sandbox, args.base_image, trusted=True, isolation=Isolation(args.isolation), workers=args.num_workers
    )
    for notice in notices:
        print(f"repo-agent: {notice}", file=sys.stderr)
    tasks = list(suite.tasks())[: args.limit]
    try:
        with progress_view(len(tasks)) as progress:
            results = validate(
                suite, backend, tasks, args.num_workers, lambda done: progress.done(f"{done.task}", done.valid)
            )
    finally:
        backend.close()
    _print_validation(suite, backend.name, results)
    return 0 if all(result.valid for result in results) else 1


def _print_validation(suite: Suite, backend: str, results: Sequence[Validation]) -> None:
    table = Table(
        "task", "tests", "passing before", "reference", "do nothing", "", title=Text(f"{suite.name} in {backend}")
    )
    for result in results:
        said = result.error or (f"not expected: {result.unexpected[0]}" if result.unexpected else "")
        verdict = "ok" if result.valid else f"INVALID {said}"
        before = f"{result.buggy_passed} of {result.tests}"
        table.add_row(result.task, str(result.tests), before, str(result.reference), str(result.nothing), Text(verdict))
    _console().print(table)
    solved = sum(result.reference == 1.0 for result in results)
    idle = sum(result.nothing == 1.0 for result in results)
    print(f"reference: {solved} of {len(results)} score 1; do-nothing: {idle} of {len(results)} score 1")


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 140)
