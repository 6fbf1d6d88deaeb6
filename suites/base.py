"""Where tasks come from: the Suite protocol, suite files, and the table of suites."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
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

    def tasks(self) -> Sequence[Task]: ...
    def environment(self, task: Task, backend: SandboxBackend, test_policy: TestPolicy) -> Environment: ...
    def split_of(self, task: Task) -> Literal["train", "test", ""]:
        """The part of the suite's split that a task belongs to; empty where there is no split."""

    def reference(self, task: Task) -> Workspace | None:
        """The repaired tree, for validation and oracle policies only."""


class RepoSuite:
    """What suites of repair tasks share."""

    def environment(self, task: Task, backend: SandboxBackend, test_policy: TestPolicy) -> Environment:
        return RepoEnvironment(task, backend, test_policy)

    def tasks(self) -> Sequence[Task]:
        raise NotImplementedError

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
        return self.whole.version

    def tasks(self) -> Sequence[Task]:
        by_id = {task.id: task for task in self.whole.tasks()}
        return [by_id[task] for task in self.ids]

    def split_of(self, task: Task) -> Literal["train", "test", ""]:
        return self.whole.split_of(task)

    def reference(self, task: Task) -> Workspace | None:
        return self.whole.reference(task)


def _minibugs(mirror: Path | None) -> Suite:
    from suites.minibugs.suite import MinibugsSuite

    return MinibugsSuite()


def _quixbugs(mirror: Path | None) -> Suite:
    from suites.quixbugs.suite import QuixbugsSuite

    return QuixbugsSuite(mirror)


SUITES: dict[str, tuple[str, Callable[[Path | None], Suite]]] = {
    "minibugs": ("24 small multi-file repair tasks, embedded", _minibugs),
    "quixbugs": ("the 40 QuixBugs programs, fetched by git on first use", _quixbugs),
}


def load(name: str, mirror: Path | None = None) -> Suite:
    """A suite by its name, or by the path of a suite file.

    Raises:
        UsageError: no such suite or file, an unreadable file, tasks that the suite does not have, or a failed fetch.
    """
    if name in SUITES:
        return SUITES[name][1](mirror)
    path = Path(name)
    if path.suffix != ".json" and not path.exists():
        raise UsageError(f"unknown suite {name!r}: choose from {', '.join(SUITES)}, or give a suite file (.json)")
    return _from_file(path, mirror)


def load_recorded(name: str, version: str, mirror: Path | None = None) -> Suite:
    """The suite that stored traces name. Where that was a suite file: the whole suite, known by its version.

    Raises UsageError where there is none.
    """
    if name in SUITES:
        return load(name, mirror)
    for each in SUITES:
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
    if content.format != SUITE_FILE_FORMAT or content.suite not in SUITES:
        raise UsageError(f"suite file {path}: unknown suite {content.suite!r} or format {content.format}")
    whole = SUITES[content.suite][1](mirror)
    if content.version != whole.version:
        raise UsageError(f"suite file {path} is for version {content.version} of {whole.name}, not {whole.version}")
    missing = sorted(set(content.tasks) - {task.id for task in whole.tasks()})
    if missing or len(set(content.tasks)) != len(content.tasks):
        raise UsageError(f"suite file {path}: unknown or repeated tasks: {', '.join(missing[:5]) or 'repeated'}")
    return SubsetSuite(content.name, whole, content.tasks)


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    return f"{'.'.join(map(str, fault['loc']))} {fault['msg']}".strip()


def write_suite_file(path: Path, content: SuiteFile) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content.model_dump(), indent=2) + "\n", encoding="utf-8")
