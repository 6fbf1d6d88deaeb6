"""BugsInPy: bugs of real projects, each in its own environment, from upstream at a pinned commit.

The metadata and the subject repositories are fetched by git when they are needed. A bug can be played once it has been
validated (see suites.bugsinpy.status): the ids of its tests, and its time-outs, come from runs of its fixed tree.
`REPO_AGENT_BUGSINPY=owner/name@commit` names another data set in the same format.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Literal

from harness.errors import UsageError
from harness.records import Task
from sandboxes.base import Limits, Resources, SandboxError
from sandboxes.kept_trees import KeptTree, keep
from sandboxes.python_spec import PythonSpec
from sandboxes.workspace import Workspace
from suites.base import RepoSuite
from suites.bugsinpy.bug import Bug
from suites.bugsinpy.metadata import COMMIT, UPSTREAM, is_wanted, read_bugs
from suites.bugsinpy.paths import PROTECTED, editable_patterns
from suites.bugsinpy.status import BugStatus, State, read_status, shipped_status, user_status_file
from suites.bugsinpy.trees import BugTrees, bug_trees, read_trees, repaired, tree_files, write_trees
from suites.fetch import NotFetched, git_files, git_repository
from suites.splits import ranked

DATA_SET_VARIABLE = "REPO_AGENT_BUGSINPY"
FAILURES = "+failures"
"""Behind the suite's name: goals show how the tests fail."""
TEST_SHARE = 0.2
"""Of all bugs, the part that belongs to the test split."""
UNKNOWN_TEST_S, UNKNOWN_RUN_S = 4.0, 12.0
"""What a test, and a run of all tests, is taken to need where nothing was measured yet: a run that hangs is to end."""


@dataclass
class BugsinpySuite(RepoSuite):
    """All bugs, those of a project, or one.

    Args:
        part: `""`, `":<project>"` or `":<project>-<id>"`, and `+failures` behind that where goals are to show how the
            tests fail.
    """

    mirror: Path | None = None
    part: str = ""

    def __post_init__(self) -> None:
        self._selection = self.part.removesuffix(FAILURES).removeprefix(":")
        if "+" in self._selection or self.part.removesuffix(FAILURES) == ":":
            raise UsageError(
                f"not a part of bugsinpy: {self.part!r} (:PROJECT or :PROJECT-ID, and {FAILURES} behind it)"
            )
        self._shows_failures = self.part.endswith(FAILURES)
        self._trees: dict[str, BugTrees] = {}
        self.unfetchable: dict[str, str] = {}
        """Repositories that could not be had, and why: they are not asked for again."""

    @property
    def name(self) -> str:
        return f"bugsinpy{self.part}"

    @cached_property
    def data_set(self) -> tuple[str, str]:
        """Repository and commit of the metadata."""
        named = os.environ.get(DATA_SET_VARIABLE, "")
        found = re.fullmatch(r"(\w[\w.-]*/\w[\w.-]*)@([0-9a-f]{40})", named)
        if named and not found:
            raise UsageError(f"{DATA_SET_VARIABLE} must be owner/name@commit, not {named!r}")
        return (found[1], found[2]) if found else (UPSTREAM, COMMIT)

    @cached_property
    def _read(self) -> tuple[list[Bug], dict[str, str]]:
        name, commit = self.data_set
        found = git_files(git_repository(name, [commit], self.mirror), commit, is_wanted)
        return read_bugs({path: file.content for path, file in found.items()})

    @cached_property
    def bugs(self) -> dict[str, Bug]:
        """The bugs of the selection that can be read, by task id. Raises UsageError where it selects nothing."""
        every = self._read[0]
        chosen = {bug.id: bug for bug in every if self._selected(bug.id)}
        if not chosen and not self.unreadable:
            projects = ", ".join(sorted({bug.project for bug in every}))
            raise UsageError(f"bugsinpy has no project or bug {self._selection!r}; its projects: {projects}")
        return chosen

    @cached_property
    def unreadable(self) -> dict[str, str]:
        """Those that cannot, and why."""
        return {bug: why for bug, why in self._read[1].items() if self._selected(bug)}

    def _selected(self, bug: str) -> bool:
        return self._selection in ("", bug, bug.rpartition("-")[0])

    @cached_property
    def status(self) -> dict[str, BugStatus]:
        """What is known of all bugs: what comes with the package stands."""
        shipped = shipped_status() if self.data_set == (UPSTREAM, COMMIT) else {}
        return read_status(user_status_file(self.data_set[1])) | shipped

    @cached_property
    def version(self) -> str:
        return self.version_of([task.id for task in self.tasks()])

    def version_of(self, tasks: Sequence[str]) -> str:
        known = [self.status[task].model_dump(include={"bug", "expected", "failing"}) for task in sorted(tasks)]
        content = [*self.data_set, self._shows_failures, known]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:40]

    # ---- tasks

    def tasks(self) -> Sequence[Task]:
        return self._tasks

    @cached_property
    def _tasks(self) -> list[Task]:
        """The bugs that were reproduced."""
        states = {bug: self.status[bug] for bug in self.bugs if bug in self.status}
        playable = [bug for bug in self.bugs if bug in states and states[bug].state is State.REPRODUCED]
        if not playable:
            known = {bug: status.state for bug, status in states.items()} | dict.fromkeys(self.unreadable, "unreadable")
            said = ", ".join(f"{bug} {state}" for bug, state in known.items()) or "none was validated"
            command = f": try repo-agent suites validate bugsinpy:{self._selection}".rstrip(":")
            advice = "" if len(known) == len(self.bugs) + len(self.unreadable) else command
            raise UsageError(f"no bug of {self.name} can be played ({said[:200]}){advice}")
        if hollow := [bug for bug in playable if not states[bug].is_sound]:
            raise UsageError(
                f"the status of {', '.join(hollow[:5])} says reproduced, and names no expected test that fails"
            )
        return [self._task(self.bugs[bug], states[bug]) for bug in playable]

    def candidates(self) -> Sequence[Task]:
        """All bugs of the selection, whatever is known of them; no test is expected yet."""
        return [self._task(bug, BugStatus(bug=bug.id, state=State.REPRODUCED)) for bug in self.bugs.values()]

    def with_named_tests(self, task: Task) -> Task:
        """The task with the tests only that upstream names."""
        return replace(task, test_args=self.bugs[task.id].test_args)

    def _task(self, bug: Bug, status: BugStatus) -> Task:
        slowest_s = max(1.0, status.slowest_s) if status.expected else UNKNOWN_TEST_S
        run_s = max(2.0, status.run_s) if status.expected else UNKNOWN_RUN_S
        return Task(
            id=bug.id,
            suite="bugsinpy",
            goal=self._goal(bug, status),
            tree=Workspace(KeptTree(lambda: self._kept(bug))),
            editable=editable_patterns(bug.project),
            protected=PROTECTED,
            expected_tests=status.expected,
            only_expected=True,
            test_args=bug.test_modules if status.whole_files else bug.test_args,
            pythonpath=bug.pythonpath,
            test_cpu_s=5 * slowest_s,
            feedback_cpu_s=3 * slowest_s,
            limits=Limits(cpu_s=10 * run_s, wall_s=30 * run_s),
            feedback_limits=Limits(cpu_s=6 * run_s, wall_s=20 * run_s),
            resources=Resources(tree_by_mount=True),
            image=bug.environment.image,
            extra={"project": bug.project},
        )

    def _goal(self, bug: Bug, status: BugStatus) -> str:
        failing = "\n".join(f"- {test}" for test in status.failing)
        text = (files("suites.bugsinpy") / "goal.md").read_text(encoding="utf-8").strip()
        goal = text.replace("{project}", bug.project).replace("{failing}", failing)
        if self._shows_failures:
            shown = [f"{test}\n{message}" for test, message in status.messages.items()]
            goal += "\n\nHow they fail:\n\n" + "\n\n".join(shown)
        return goal

    # ---- trees

    def _kept(self, bug: Bug) -> str:
        """Have the bug's tree on this machine. Its faults are the infrastructure's: other tasks go on."""
        try:
            tree = self.trees_of(bug).buggy
            return keep(tree, lambda: tree_files(self._repository(bug), tree))
        except UsageError as error:
            raise SandboxError(str(error)) from error

    def _repository(self, bug: Bug) -> Path:
        if bug.repository in self.unfetchable:
            raise UsageError(self.unfetchable[bug.repository])
        try:
            return git_repository(bug.repository, [bug.fixed_commit, bug.buggy_commit], self.mirror)
        except NotFetched as error:
            self.unfetchable[bug.repository] = str(error)
            raise

    def trees_of(self, bug: Bug) -> BugTrees:
        """The bug's trees, from git once. Raises UsageError where the repository cannot be had."""
        if bug.id not in self._trees:
            known = read_trees(bug)
            self._trees[bug.id] = known or write_trees(bug, bug_trees(self._repository(bug), bug))
        return self._trees[bug.id]

    def reference(self, task: Task) -> Workspace:
        """The tree with the fixed commit's files where the fix changed something."""
        bug = self.bugs[task.id]
        return repaired(self._repository(bug), bug, self.trees_of(bug), task.tree)

    # ---- what else a suite tells

    def environments(self) -> Mapping[PythonSpec, Sequence[str]]:
        """The bugs of the selection by the environment that they need; those that cannot be played need none."""
        found: dict[PythonSpec, list[str]] = defaultdict(list)
        for bug in self.bugs.values():
            if not bug.compiles:
                found[bug.environment].append(bug.id)
        return found

    def prepare(self, tasks: Sequence[Task], workers: int, say: Callable[[str], None]) -> Mapping[str, str]:
        from suites.environments import prepare

        with ThreadPoolExecutor(workers) as pool:
            faults = dict(zip((task.id for task in tasks), pool.map(_fault_of_tree, tasks), strict=True))
        left_out = {task: why for task, why in faults.items() if why}
        rest = [task for task in tasks if task.id not in left_out]
        return left_out | prepare(self, rest, workers, say)

    def split_of(self, task: Task) -> Literal["train", "test", ""]:
        """By the rank among all bugs of the data set, whichever were validated or selected."""
        return "test" if task.id in self._test_split else "train"

    @cached_property
    def _test_split(self) -> frozenset[str]:
        order = ranked([bug.id for bug in self._read[0]])
        return frozenset(order[: math.ceil(TEST_SHARE * len(order))])

    def group_of(self, task: Task) -> str:
        """What tasks are split by for unseen projects."""
        return self.bugs[task.id].project


def _fault_of_tree(task: Task) -> str:
    """Lay out a task's tree: why that cannot be done, or nothing."""
    try:
        return "" if task.tree.digest else "it has no tree"
    except SandboxError as error:
        return str(error)
