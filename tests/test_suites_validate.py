"""Validation finds out which tests tell a task's trees apart, and says what is wrong with a task."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.records import Task
from sandboxes.base import Isolation, Limits, Resources, Sandbox, SandboxBackend, SandboxError
from sandboxes.local_sandbox import LocalBackend
from sandboxes.pool import Pool
from sandboxes.workspace import MappingTree, Workspace
from suites.base import RepoSuite
from suites.bugsinpy.status import BugStatus, State
from suites.bugsinpy.suite import BugsinpySuite
from suites.bugsinpy.validation import bug_states, states_without_runs
from suites.suites_cli import main, parser
from suites.validate import Validation, validate, validated
from suites.validate_cli import run_validation
from tests.bugsinpy_world import World, build_world

COUNTING = """
import os


def runs(name):
    path = os.path.join({place!r}, name)
    with open(path, "a") as file:
        file.write("x")
    return os.path.getsize(path)


def is_fixed():
    from code_under_test import double
    return double(2) == 4
"""
BUGGY, FIXED = b"def double(number):\n    return number\n", b"def double(number):\n    return 2 * number\n"


@dataclass(frozen=True)
class ByHand(RepoSuite):
    """One suite of tasks with their repairs."""

    made: tuple[Task, ...]
    repairs: dict[str, Workspace | None]
    name: str = "by-hand"
    version: str = "1"

    def tasks(self) -> tuple[Task, ...]:
        return self.made

    def reference(self, task: Task) -> Workspace | None:
        return self.repairs[task.id]


@dataclass(frozen=True)
class Maker:
    """Makes tasks whose tests may count their runs in a folder of the host."""

    place: Path

    def task(self, tests: str, expected: tuple[str, ...] = (), name: str = "one") -> Task:
        files = {
            "code_under_test.py": BUGGY,
            "counting.py": COUNTING.format(place=str(self.place)).encode(),
            "notes.txt": b"old\n",
            "tests/test_code.py": ("from counting import is_fixed, runs\n\n\n" + tests).encode(),
        }
        tree = Workspace(MappingTree(files))
        return Task(name, "by-hand", "", tree, ("code_under_test.py",), expected, ("tests/test_code.py",))

    def suite(self, *tasks: Task) -> ByHand:
        return ByHand(tasks, {task.id: task.tree.write("code_under_test.py", FIXED) for task in tasks})


@pytest.fixture(scope="module")
def shared() -> Iterator[Pool]:
    """Sandboxes that serve all tests of this module: to start one takes longer than what is run here."""
    backend = Pool(LocalBackend(Isolation.RUN), 1)
    yield backend
    backend.close()


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def test(name: str, body: str) -> str:
    return f"def test_{name}():\n    assert {body}\n\n\n"


test.__test__ = False  # type: ignore[attr-defined]
TELLS = test("steady", "is_fixed()")


def validation(maker: Maker, backend: SandboxBackend, tests: str, repeats: int = 2) -> Validation:
    task = maker.task(tests)
    return validated(maker.suite(task), backend, task, repeats)


def of(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/test_code.py::test_{name}" for name in names)


# ---- repeats


def test_steady_tests_are_expected_and_those_that_tell_the_trees_apart_are_named(maker: Maker, shared: Pool) -> None:
    seen = validation(maker, shared, TELLS + test("both", "True") + test("neither", "False"), 2)
    assert (seen.expected, seen.failing, seen.quarantined) == (of("both", "steady"), of("steady"), ())
    assert (seen.reference, seen.nothing, seen.buggy_passed, seen.repeats) == (1.0, 0.0, 1, 2)
    assert seen.valid
    assert list(seen.messages) == [*of("steady")]
    assert "assert False" in seen.messages[of("steady")[0]]


def test_a_test_that_fails_on_the_repair_at_times_is_quarantined_and_the_steady_ones_stay(
    maker: Maker, shared: Pool
) -> None:
    seen = validation(maker, shared, TELLS + test("at_times", "runs('a') != 2"))
    assert (seen.expected, seen.quarantined) == (of("steady"), of("at_times"))
    assert seen.valid


def test_a_test_that_is_there_at_times_is_quarantined(maker: Maker, shared: Pool) -> None:
    there = "if runs('a') != 2:\n    def test_seldom():\n        pass\n\n\n"
    seen = validation(maker, shared, there + TELLS)
    assert (seen.expected, seen.quarantined) == (of("steady"), of("seldom"))


def test_once_is_not_enough_to_see_that_a_test_is_flaky(maker: Maker, shared: Pool) -> None:
    seen = validation(maker, shared, TELLS + test("at_times", "runs('a') != 2"), 1)
    assert (seen.expected, seen.quarantined) == (of("at_times", "steady"), ())


def test_a_test_that_passes_on_the_tasks_own_tree_at_times_does_not_tell_the_trees_apart(
    maker: Maker, shared: Pool
) -> None:
    seen = validation(maker, shared, test("lucky", "is_fixed() or runs('a') == 2"))
    assert (seen.expected, seen.failing) == (of("lucky"), ())
    assert (seen.reference, seen.nothing) == (1.0, 1.0)
    assert not seen.valid


def test_one_lucky_test_beside_one_that_tells_is_no_harm(maker: Maker, shared: Pool) -> None:
    seen = validation(maker, shared, TELLS + test("lucky", "is_fixed() or runs('a') == 2"))
    assert (seen.failing, seen.buggy_passed, seen.nothing) == (of("steady"), 1, 0.0)
    assert seen.valid


def test_a_run_that_is_cut_off_records_nothing_and_says_so(maker: Maker, shared: Pool) -> None:
    """What it would have shown after that is not known."""
    task = maker.task(TELLS + "def test_hangs():\n    import time\n    time.sleep(60)\n")
    task = replace(task, limits=Limits(wall_s=0.7), test_cpu_s=30)
    seen = validated(maker.suite(task), shared, task)
    assert (seen.expected, seen.error) == ((), "the run went over its limits")
    assert not seen.valid


# ---- what is wrong with a task


def test_a_repair_that_may_not_be_made_is_said_by_name(maker: Maker, shared: Pool) -> None:
    task = maker.task(TELLS)
    repair = task.tree.write("code_under_test.py", FIXED).write("notes.txt", b"new\n")
    seen = validated(ByHand((task,), {"one": repair}), shared, task)
    assert seen.error == "the repair changes what may not be edited: notes.txt"
    assert seen.valid  # the rest of it is enough


def test_a_repair_of_which_nothing_is_allowed_scores_nothing(maker: Maker, shared: Pool) -> None:
    task = replace(maker.task(TELLS, of("steady")), protected=("code_under_test.py",))
    seen = validated(maker.suite(task), shared, task)
    assert (seen.reference, seen.error) == (0.0, "the repair changes what may not be edited: code_under_test.py")


def test_a_test_that_the_task_forgot_is_named(maker: Maker, shared: Pool) -> None:
    task = maker.task(TELLS + test("forgotten", "True"), of("steady"))
    seen = validated(maker.suite(task), shared, task)
    assert (seen.unexpected, seen.valid) == (of("forgotten"), False)


def test_a_repair_that_repairs_nothing_shows_how_it_fails(maker: Maker, shared: Pool) -> None:
    seen = validation(maker, shared, test("hopeless", "False, 'no hope'"), 1)
    assert (seen.reference, seen.expected) == (0.0, ())
    assert "no hope" in seen.messages[of("hopeless")[0]]


def test_tests_that_cannot_be_collected_show_why(maker: Maker, shared: Pool) -> None:
    seen = validation(maker, shared, "import no_such_module\n", 1)
    assert seen.reference == 0.0
    assert "no_such_module" in "".join(seen.messages.values())


class Failing(LocalBackend):
    """An engine that fails for one image."""

    def open(self, resources: Resources, image: str = "") -> Sandbox:  # type: ignore[override]
        if image == "broken":
            raise SandboxError("the engine is gone")
        return super().open(resources, image)


@pytest.mark.slow
def test_faults_are_told_and_the_other_tasks_go_on(maker: Maker) -> None:
    tasks = [maker.task(TELLS, name=name) for name in ("broken", "good", "unsolved", "lost")]
    tasks[0] = replace(tasks[0], image="broken")
    suite = maker.suite(*tasks)
    suite.repairs["unsolved"] = None
    del suite.repairs["lost"]
    told: list[str] = []
    backend = Failing()
    try:
        results = validate(LostOne(suite), backend, tasks, 2, lambda done: told.append(done.task))  # type: ignore[arg-type]
    finally:
        backend.close()
    assert {result.task: result.error for result in results} == {
        "broken": "the engine is gone",
        "good": "",
        "unsolved": "no reference",
        "lost": "its repository is gone",
    }
    assert [result.valid for result in results] == [False, True, False, False]
    assert sorted(told) == ["broken", "good", "lost", "unsolved"]


@dataclass(frozen=True)
class LostOne:
    """A suite that cannot give one reference."""

    suite: ByHand

    def reference(self, task: Task) -> Workspace | None:
        if task.id not in self.suite.repairs:
            raise UsageError("its repository is gone")
        return self.suite.reference(task)


# ---- the command


def run(suite: ByHand, *flags: str) -> int:
    args = parser().parse_args(
        ["validate", "by-hand", "--sandbox", "local", "--isolation", "run", "--num-workers", "1", *flags]
    )
    return run_validation(suite, args)


def test_the_command_ends_with_0_where_all_is_well_and_writes_what_it_saw(
    maker: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = maker.suite(maker.task(TELLS + test("at_times", "runs('a') != 2")))
    assert run(suite, "--repeat", "2", "--json", str(tmp_path / "new" / "seen.json")) == 0
    (seen,) = json.loads((tmp_path / "new" / "seen.json").read_text())["tasks"]
    assert (seen["task"], seen["valid"], seen["repeats"], seen["error"]) == ("one", True, 2, "")
    assert (seen["expected"], seen["failing"], seen["quarantined"]) == (
        [*of("steady")],
        [*of("steady")],
        [*of("at_times")],
    )
    assert list(seen["messages"]) == [*of("steady")]
    said = capsys.readouterr().out
    assert "reference: 1 of 1 score 1; do-nothing: 0 of 1 score 1" in said


@pytest.mark.slow
def test_the_command_ends_with_1_where_a_task_is_not_valid(maker: Maker, capsys: pytest.CaptureFixture[str]) -> None:
    suite = maker.suite(maker.task(TELLS), maker.task(TELLS + test("more", "True"), of("steady"), "two"))
    assert run(suite) == 1
    assert "INVALID not expected: tests/test_code.py::test_more" in capsys.readouterr().out
    assert run(suite, "--limit", "1") == 0


def test_a_folder_in_the_place_of_the_json_is_said_before_anything_runs(maker: Maker, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^--json \S+ is a directory$"):
        run(maker.suite(maker.task(TELLS)), "--json", str(tmp_path))


@pytest.mark.parametrize("flags", [["--repeat", "0"], ["--limit", "0"], ["--repeat", "x"]])
def test_a_number_that_is_none_is_one_line(flags: list[str]) -> None:
    with pytest.raises(UsageError, match="argument --"):
        main(["validate", "minibugs", *flags])


# ---- the bugs of the small world, with this machine's own Python

RUN_HERE = ("ferry-1", "ferry-2", "ferry-4", "ferry-7", "ferry-8", "tally-2")
"""They need nothing but pytest."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        world = build_world(tmp_path_factory.mktemp("world"))
        patch.setenv("REPO_AGENT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("REPO_AGENT_BUGSINPY", f"{world.metadata}@{world.commit}")
        yield world


@pytest.mark.slow
def test_states_are_those_that_the_small_world_promises(world: World, shared: Pool) -> None:
    suite = BugsinpySuite(world.mirror)
    tasks = [task for task in suite.candidates() if task.id in RUN_HERE]
    found: dict[str, BugStatus | None] = {}
    bug_states(suite, shared, tasks, 1, 2, lambda status, seen: found.update({seen.task: status}))
    for name, status in found.items():
        bug = world.bug(name)
        assert status is not None
        assert str(status.state) == bug.state, status
        if bug.state == "reproduced":
            shows = suite.bugs[name].shown_by
            assert {test for test in status.expected if shows(test)} == set(bug.expected), name
            assert {test for test in status.failing if shows(test)} == set(bug.failing), name
        assert status.quarantined == ()
        assert bool(status.why) == (status.state is not State.REPRODUCED)
    assert set(found) == set(RUN_HERE)
    neighbour = "ferry/test/test_timetable.py::TimetableTest::test_noon"
    assert found["ferry-1"] and neighbour in found["ferry-1"].expected  # it is in the file of the test that shows it


def test_bugs_that_cannot_be_run_have_a_state_that_says_why(world: World) -> None:
    suite = BugsinpySuite(world.mirror)
    states = states_without_runs(suite, {"ghost-1": "no repository", "tally-16": "no image"})
    assert {bug: status.state for bug, status in states.items()} == {
        "tally-11": State.UNREADABLE,
        "tally-13": State.UNREADABLE,
        "tally-12": State.COMPILES,
        "ghost-1": State.NO_ENVIRONMENT,
        "tally-16": State.NO_ENVIRONMENT,
    }
    assert all(status.why for status in states.values())


def test_a_bug_whose_sandbox_fails_has_no_state(world: World) -> None:
    suite = BugsinpySuite(world.mirror)
    task = replace(next(task for task in suite.candidates() if task.id == "ferry-1"), image="broken")
    told: list[tuple[BugStatus | None, str]] = []
    backend = Failing()
    try:
        bug_states(suite, backend, [task], 1, 2, lambda status, seen: told.append((status, seen.error)))
    finally:
        backend.close()
    assert told == [(None, "the engine is gone")]
