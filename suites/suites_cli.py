"""`repo-agent suites`: list, show, validate and split suites."""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from harness.cli import Parser, add_suite_flags
from harness.errors import UsageError
from harness.progress import console
from suites.base import SUITES, SubsetSuite, Suite, SuiteFile, load, write_suite_file
from suites.fetch import mirror_directory
from suites.gsm8k.loading import question_suite
from suites.gsm8k.suite import QuestionSuite
from suites.splits import TEST_SIZE, folds, split
from suites.validate_cli import add_validate_flags, run_validation

SHOWN_FILES, SHOWN_QUESTIONS, SHOWN_CHARS = 200, 100, 70


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
            add_validate_flags(command)
        else:
            size = command.add_mutually_exclusive_group()
            size.add_argument(
                "--test-size", type=int, help=f"tasks to test on (default: {TEST_SIZE}; by project: about a fifth)"
            )
            size.add_argument("--folds", type=int, help="write so many train and test pairs instead")
            command.add_argument(
                "--by",
                choices=("task", "project"),
                default="task",
                help="project: no project has tasks in both parts; sizes are as near as whole projects allow",
            )
            command.add_argument("--out", type=Path, default=Path("."), help="directory for the files (default: here)")
    return made


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    if args.command == "list":
        return _list()
    suite = load(args.suite, mirror_directory(args.mirror))
    if args.command == "show":
        questions = question_suite(suite)
        return _show_question(suite, questions, args.task) if questions else _show(suite, args.task)
    if args.command == "split":
        return _split(suite, args)
    return run_validation(suite, args)


def _list() -> int:
    table = Table("suite", "what it is")
    for name, (text, _) in SUITES.items():
        table.add_row(name, text)
    console().print(table)
    return 0


def _show(suite: Suite, task_id: str | None) -> int:
    tasks = {task.id: task for task in suite.tasks()}
    if task_id is None:
        table = Table("task", "tests", "may be edited", title=Text(f"{suite.name}, version {suite.version[:12]}"))
        for task in tasks.values():
            table.add_row(task.id, str(len(task.expected_tests)), ", ".join(task.editable))
        console().print(table)
        return 0
    if task_id not in tasks:
        raise UsageError(f"suite {suite.name} has no task {task_id!r}")
    task = tasks[task_id]
    print(f"{task.id} ({task.suite})\n\n{task.goal}\n\nmay be edited: {', '.join(task.editable)}\nfiles:")
    print("\n".join(f"  {path}" for path in task.tree.paths[:SHOWN_FILES]))
    if len(task.tree.paths) > SHOWN_FILES:
        print(f"  and {len(task.tree.paths) - SHOWN_FILES} more")
    print("expected tests:\n" + "\n".join(f"  {test}" for test in task.expected_tests))
    return 0


def _show_question(suite: Suite, questions: QuestionSuite, task_id: str | None) -> int:
    tasks = {task.id: questions.by_id[task.id] for task in suite.tasks()}
    if task_id is None:
        table = Table("task", "answer", "question", title=Text(f"{suite.name}, version {suite.version[:12]}"))
        for each in list(tasks.values())[:SHOWN_QUESTIONS]:
            asked = f"{each.question[:SHOWN_CHARS]}…" if len(each.question) > SHOWN_CHARS else each.question
            table.add_row(each.id, each.gold, Text(asked))
        console().print(table)
        left = len(tasks) - SHOWN_QUESTIONS
        print(f"{f'and {left} more; ' * (left > 0)}{len(tasks)} questions")
        return 0
    if task_id not in tasks:
        raise UsageError(f"suite {suite.name} has no task {task_id!r}")
    chosen = tasks[task_id]
    for message in questions.form.prompt(chosen.question):
        print(f"[{message.role}]\n{message.content}\n")
    print(f"a right answer:\n{questions.form.response(chosen.reasoning, chosen.gold)}")
    return 0


def _split(suite: Suite, args: argparse.Namespace) -> int:
    tasks = suite.tasks()
    if question_suite(suite) and len({suite.split_of(task) for task in tasks}) > 1:
        raise UsageError(f"suite {suite.name} is split already: name its part, {suite.name}:train or {suite.name}:test")
    ids = [task.id for task in tasks]
    groups = {task.id: suite.group_of(task) if args.by == "project" else task.id for task in tasks}
    if not all(groups.values()):
        raise UsageError(f"suite {suite.name} has no projects to split by")
    chosen = f"--folds {args.folds}" if args.folds is not None else f"--test-size {_test_size(args, ids)}"
    made_by = f"repo-agent suites split {suite.name}{' --by project' * (args.by == 'project')} {chosen}"
    parts = {"": ids}
    if args.folds is not None:
        for number, (train, test) in enumerate(folds(ids, args.folds, groups), 1):
            parts |= {f"_fold{number}_train": train, f"_fold{number}_test": test}
    else:
        train, test = split(ids, _test_size(args, ids), groups)
        parts |= {"_train": train, "_test": test}
    for part, tasks_of_part in parts.items():
        _write_part(suite, part, tasks_of_part, made_by, args.out)
    return 0


def _test_size(args: argparse.Namespace, ids: Sequence[str]) -> int:
    if args.test_size is not None:
        return int(args.test_size)
    return max(1, len(ids) // 5) if args.by == "project" else TEST_SIZE


def _write_part(suite: Suite, part: str, chosen: Sequence[str], made_by: str, out: Path) -> None:
    name = re.sub(r"[^\w.-]", "_", suite.name) + f"{part}_suite"
    root = suite.whole.name if isinstance(suite, SubsetSuite) else suite.name
    version = suite.version_of(chosen)
    content = SuiteFile(name=name, suite=root, version=version, tasks=tuple(chosen), made_by=made_by)
    write_suite_file(out / f"{name}.json", content)
    its = set(chosen)
    groups = Counter(suite.group_of(task) for task in suite.tasks() if task.id in its)
    named = ", ".join(f"{group} {count}" for group, count in sorted(groups.items()) if group)
    print(f"{out / name}.json: {len(chosen)} tasks{f' ({named})' if named else ''}")
