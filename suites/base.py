"""Where tasks come from: the Suite protocol, suite files, and the table of suites."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field, ValidationError

from harness.environment import Environment, RepoEnvironment
from harness.errors import UsageError
from harness.records import Record, Task, TestPolicy
from sandboxes.base import SandboxBackend
from sandboxes.workspace import Workspace
from suites.splits import part_of

SUITE_FILE_FORMAT = 1


class Suite(Protocol):
    """A named set of tasks, in a fixed order."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str:
        """Identity of the tasks' content."""

    def version_of(self, tasks: Sequence[str]) -> str:
        """Identity of the content of some of the tasks."""

    def tasks(self) -> Sequence[Task]: ...
    def prepare(self, tasks: Sequence[Task], workers: int, say: Callable[[str], None]) -> Mapping[str, str]:
        """Have what the tasks need on this machine: by task id, why one cannot be played. `say` hears of progress."""

    def environment(self, task: Task, backend: SandboxBackend, test_policy: TestPolicy) -> Environment: ...
    def split_of(self, task: Task) -> Literal["train", "test", ""]:
        """The part of the suite's split that a task belongs to; empty where there is no split."""

    def group_of(self, task: Task) -> str:
        """The project that a task is of; empty where a suite has no projects."""

    def reference(self, task: Task) -> Workspace | None:
        """The repaired tree, for validation and oracle policies only."""


class RepoSuite:
    """What suites of repair tasks share."""

    def version_of(self: Suite, tasks: Sequence[str]) -> str:
        return self.version

    def prepare(self, tasks: Sequence[Task], workers: int, say: Callable[[str], None]) -> Mapping[str, str]:
        return {}

    def environment(self, task: Task, backend: SandboxBackend, test_policy: TestPolicy) -> Environment:
        return RepoEnvironment(task, backend, test_policy)

    def tasks(self) -> Sequence[Task]:
        raise NotImplementedError

    def group_of(self, task: Task) -> str:
        return ""

    def split_of(self, task: Task) -> Literal["train", "test", ""]:
        return part_of(task.id, [each.id for each in self.tasks()])


class SuiteFile(Record):
    """A set of tasks on disk: which suite, which version of it, which task ids."""

    format: int = SUITE_FILE_FORMAT
    name: str = Field(pattern=r"^[\w.-]{1,100}$")
    suite: str
    version: str
    tasks: tuple[str, ...] = Field(min_length=1)
    made_by: str = ""
    """The command that made the file."""


@dataclass(frozen=True)
class SubsetSuite(RepoSuite):
    """Some tasks of a suite, in the order of the file that names them."""

    name: str
    whole: Suite
    ids: tuple[str, ...]

    @property
    def version(self) -> str:
        return self.whole.version_of(self.ids)

    def version_of(self, tasks: Sequence[str]) -> str:
        return self.whole.version_of(tasks)

    def prepare(self, tasks: Sequence[Task], workers: int, say: Callable[[str], None]) -> Mapping[str, str]:
        return self.whole.prepare(tasks, workers, say)

    def tasks(self) -> Sequence[Task]:
        by_id = {task.id: task for task in self.whole.tasks()}
        return [by_id[task] for task in self.ids]

    def environment(self, task: Task, backend: SandboxBackend, test_policy: TestPolicy) -> Environment:
        return self.whole.environment(task, backend, test_policy)

    def split_of(self, task: Task) -> Literal["train", "test", ""]:
        return self.whole.split_of(task)

    def group_of(self, task: Task) -> str:
        return self.whole.group_of(task)

    def reference(self, task: Task) -> Workspace | None:
        return self.whole.reference(task)


def _minibugs(mirror: Path | None, part: str) -> Suite:
    from suites.minibugs.suite import MinibugsSuite

    return _whole(MinibugsSuite(), part)


def _quixbugs(mirror: Path | None, part: str) -> Suite:
    from suites.quixbugs.renamed import MAX_COPIES, RenamedQuixbugs
    from suites.quixbugs.suite import QuixbugsSuite

    renamed = re.fullmatch(r"\+renamed:([1-9]\d{0,3})", part)
    if renamed and int(renamed[1]) <= MAX_COPIES:
        return RenamedQuixbugs(QuixbugsSuite(mirror), int(renamed[1]))
    return _whole(QuixbugsSuite(mirror), part)


def _bugsinpy(mirror: Path | None, part: str) -> Suite:
    from suites.bugsinpy.suite import BugsinpySuite

    return BugsinpySuite(mirror, part)


def _gsm8k(mirror: Path | None, part: str) -> Suite:
    from suites.gsm8k.loading import load_questions

    return load_questions(f"gsm8k{part}", mirror)


def _arith(mirror: Path | None, part: str) -> Suite:
    from suites.gsm8k.loading import load_questions

    return load_questions(f"arith{part}")


def _whole(suite: Suite, part: str) -> Suite:
    if part:
        raise UsageError(f"suite {suite.name} has no part {part!r}: give a suite file for some of its tasks")
    return suite


SUITES: dict[str, tuple[str, Callable[[Path | None, str], Suite]]] = {
    "minibugs": ("24 small multi-file repair tasks, embedded", _minibugs),
    "quixbugs": (
        "the 40 QuixBugs programs, fetched by git; +renamed:N: N copies of the training half under other names",
        _quixbugs,
    ),
    "bugsinpy": ("501 bugs of 17 projects; parts: bugsinpy:PROJECT, bugsinpy:PROJECT-ID; +failures", _bugsinpy),
    "gsm8k": ("8,792 school problems; parts: gsm8k:train, gsm8k:test; +r1: the other prompt format", _gsm8k),
    "arith": ("9,000 generated word problems; parts: arith:train, arith:test; +easy: one small step; +r1", _arith),
}


def _root(name: str) -> str:
    """The suite that a name is of, without the part that it names."""
    return re.split(r"[:+]", name)[0]


def load(name: str, mirror: Path | None = None) -> Suite:
    """A suite by its name, with the part of it that is wanted where it has parts, or by the path of a suite file.

    Raises:
        UsageError: no such suite or file, an unreadable file, tasks that the suite does not have, or a failed fetch.
    """
    root = _root(name)
    if root in SUITES:
        return SUITES[root][1](mirror, name[len(root) :])
    path = Path(name)
    if path.suffix != ".json" and not path.exists():
        raise UsageError(f"unknown suite {name!r}: choose from {', '.join(SUITES)}, or give a suite file (.json)")
    return _from_file(path, mirror)


def load_recorded(name: str, version: str, mirror: Path | None = None) -> Suite:
    """The suite that stored traces name. Where that was a suite file: the whole suite, known by its version.

    Raises UsageError where there is none.
    """
    if _root(name) in SUITES:
        return load(name, mirror)
    for each in ("minibugs", "quixbugs"):
        if (whole := load(each, mirror)).version == version:
            return whole
    raise UsageError(
        f"the traces are of the suite {name!r} of version {version[:12]}: name its suite file with --suite"
    )


def _from_file(path: Path, mirror: Path | None) -> Suite:
    try:
        content = SuiteFile.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read suite file {path}: {error.strerror}") from error
    except (ValidationError, UnicodeDecodeError) as error:
        first = _first_fault(error) if isinstance(error, ValidationError) else "not UTF-8"
        raise UsageError(f"not a suite file: {path}: {first}") from error
    if content.format != SUITE_FILE_FORMAT or _root(content.suite) not in SUITES:
        raise UsageError(f"suite file {path}: unknown suite {content.suite!r} or format {content.format}")
    whole = load(content.suite, mirror)
    missing = sorted(set(content.tasks) - {task.id for task in whole.tasks()})
    if missing or len(set(content.tasks)) != len(content.tasks):
        raise UsageError(f"suite file {path}: unknown or repeated tasks: {', '.join(missing[:5]) or 'repeated'}")
    subset = SubsetSuite(content.name, whole, content.tasks)
    if content.version != subset.version:
        raise UsageError(f"suite file {path} is for version {content.version} of {whole.name}, not {subset.version}")
    return subset


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    return f"{'.'.join(map(str, fault['loc']))} {fault['msg']}".strip()


def write_suite_file(path: Path, content: SuiteFile) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content.model_dump(), indent=2) + "\n", encoding="utf-8")
