"""The suite of a data set in BugsInPy's format: what is selected, what an agent is told, what versions tell apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.errors import UsageError
from suites.base import Suite, load
from suites.bugsinpy.paths import is_test_path, patch_paths
from suites.bugsinpy.status import BugStatus, State, user_status_file, write_status
from suites.bugsinpy.suite import BugsinpySuite
from suites.suites_cli import main
from tests.bugsinpy_world import World, build_world
from tests.git_work import Work

REPRODUCED = ["ferry-1", "ferry-2", "ferry-3", "ferry-4", "ferry-5", "ferry-6"]
REPRODUCED += ["tally-1", "tally-2", "tally-3", "tally-4", "tally-5", "tally-6", "tally-9", "tally-14", "tally-15"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def unknown(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A machine on which no bug was validated: its status file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPO_AGENT_MIRROR", str(world.mirror))
        patch.setenv("REPO_AGENT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("REPO_AGENT_BUGSINPY", f"{world.metadata}@{world.commit}")
        yield user_status_file(world.commit)


@pytest.fixture(scope="module")
def states(world: World) -> dict[str, BugStatus]:
    """As `validate` finds them."""
    known = {}
    for bug in world.bugs:
        if bug.state == "reproduced":
            said = {bug.failing[0]: "AssertionError: assert 1 == 2"}
            known[bug.id] = BugStatus(
                bug=bug.id, state=State.REPRODUCED, expected=bug.expected, failing=bug.failing, messages=said
            )
        elif bug.state == "flaky":
            known[bug.id] = BugStatus(bug=bug.id, state=State.FLAKY, why="at times", quarantined=bug.flaky)
    return known


@pytest.fixture
def validated(unknown: Path, states: dict[str, BugStatus]) -> Iterator[Path]:
    """The status file of a machine on which all were."""
    write_status(unknown, states)
    yield unknown
    unknown.unlink()


def ids(suite: Suite) -> list[str]:
    return [task.id for task in suite.tasks()]


# ---- what is selected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bugsinpy", REPRODUCED),
        ("bugsinpy+failures", REPRODUCED),
        ("bugsinpy:ferry", REPRODUCED[:6]),
        ("bugsinpy:tally-1", ["tally-1"]),
        ("bugsinpy:tally-14+failures", ["tally-14"]),
    ],
)
def test_a_name_selects_all_a_project_or_a_bug_that_was_reproduced(
    validated: Path, name: str, expected: list[str]
) -> None:
    suite = load(name)
    assert ids(suite) == expected
    assert suite.name == name


@pytest.mark.parametrize("part", ["nothing", "tally-99", "tall", "tally-", "Tally", "-1", "tally:1"])
def test_an_unknown_part_is_one_line_with_the_projects_names(validated: Path, part: str) -> None:
    with pytest.raises(
        UsageError, match=rf"^bugsinpy has no project or bug '{part}'; its projects: ferry, ghost, tally$"
    ):
        load(f"bugsinpy:{part}").tasks()


@pytest.mark.parametrize("part", [":", ":+failures", ":tally+failure", "+", ":tally+failures+failures"])
def test_a_part_that_is_none_is_one_line_with_the_forms_there_are(validated: Path, part: str) -> None:
    with pytest.raises(UsageError, match=r"^not a part of bugsinpy: .* \(:PROJECT or :PROJECT-ID, and \+failures"):
        load(f"bugsinpy{part}")


def test_a_part_that_cannot_be_read_says_so(validated: Path) -> None:
    with pytest.raises(UsageError, match=r"^no bug of bugsinpy:tally-11 can be played \(tally-11 unreadable\)$"):
        load("bugsinpy:tally-11").tasks()


@pytest.mark.parametrize(
    "hollow",
    [{"expected": (), "failing": ()}, {"failing": ()}, {"expected": ("tests/test_a.py::test_b",)}],
    ids=["nothing", "nothing fails", "what fails is not expected"],
)
def test_a_status_under_which_doing_nothing_would_solve_the_bug_is_refused(
    validated: Path, states: dict[str, BugStatus], hollow: dict[str, tuple[str, ...]]
) -> None:
    write_status(validated, {"tally-1": states["tally-1"].model_copy(update=hollow)})
    with pytest.raises(UsageError, match=r"^the status of tally-1 says reproduced, and names no expected test that f"):
        load("bugsinpy:tally").tasks()


def test_a_part_that_was_seen_to_be_of_no_use_says_so(validated: Path) -> None:
    with pytest.raises(UsageError, match=r"^no bug of bugsinpy:tally-10 can be played \(tally-10 flaky\)$"):
        load("bugsinpy:tally-10").tasks()


@pytest.mark.parametrize(("name", "command"), [("bugsinpy", "bugsinpy"), ("bugsinpy:ferry+failures", "bugsinpy:ferry")])
def test_where_nothing_was_validated_the_command_is_named(unknown: Path, name: str, command: str) -> None:
    with pytest.raises(
        UsageError, match=rf"^no bug of \S+ can be played \([^\n]*\): try repo-agent suites validate {command}$"
    ):
        load(name).tasks()


def test_a_project_with_a_hyphen_is_a_project(unknown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = hyphenated(tmp_path / "mirror")
    monkeypatch.setenv("REPO_AGENT_BUGSINPY", f"own/set@{commit}")
    for part, chosen in {"you-get": ["you-get-2", "you-get-11"], "you-get-2": ["you-get-2"], "you": ["you-3"]}.items():
        suite = BugsinpySuite(tmp_path / "mirror", f":{part}")
        assert list(suite.bugs) == chosen
        assert {suite.group_of(task) for task in suite.candidates()} == {chosen[0].rpartition("-")[0]}


def hyphenated(mirror: Path) -> str:
    """A data set whose one project's name begins with another's; its commit."""
    files: dict[str, bytes | None] = {}
    for project, numbers in {"you-get": (2, 11), "you": (3,)}.items():
        files[f"projects/{project}/project.info"] = f'github_url="https://github.com/own/{project}"\n'.encode()
        for number in numbers:
            root = f"projects/{project}/bugs/{number}"
            info = f'python_version="3.8.3"\nbuggy_commit_id="{"a" * 40}"\nfixed_commit_id="{"b" * 40}"\n'
            files[f"{root}/bug.info"] = (info + 'test_file="tests/test_x.py"\n').encode()
            files[f"{root}/run_test.sh"] = b"pytest tests/test_x.py::test_x\n"
            files[f"{root}/bug_patch.txt"] = b"diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-1\n+2\n"
    work = Work.made(mirror.parent / "set")
    commit = work.commit(files)
    work.into(mirror / "own" / "set.bundle")
    return commit


@pytest.mark.parametrize(
    "value", ["own/set", "own/set@abc", "set@" + "a" * 40, "own/set@" + "g" * 40, "../x@" + "a" * 40]
)
def test_a_data_set_that_is_none_is_one_line(unknown: Path, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPO_AGENT_BUGSINPY", value)
    with pytest.raises(UsageError, match=r"^REPO_AGENT_BUGSINPY must be owner/name@commit, not '[^\n]+'$"):
        load("bugsinpy").tasks()


# ---- what a task says


def test_a_task_has_the_tests_and_names_those_that_fail(validated: Path, world: World) -> None:
    for task in load("bugsinpy").tasks():
        bug = world.bug(task.id)
        assert set(task.expected_tests) == set(bug.expected)
        assert [line[2:] for line in task.goal.splitlines() if line.startswith("- ")] == list(bug.failing)
        assert bug.id.rpartition("-")[0] in task.goal
        assert task.image.startswith("repo-agent")


def test_failures_are_shown_only_where_they_are_asked_for(validated: Path) -> None:
    plain, shown = load("bugsinpy:tally-1").tasks()[0].goal, load("bugsinpy:tally-1+failures").tasks()[0].goal
    assert "assert 1 == 2" not in plain
    assert shown.startswith(plain)
    assert "assert 1 == 2" in shown


def test_goals_and_tasks_say_nothing_of_the_fix(validated: Path) -> None:
    suite = BugsinpySuite(part="+failures")
    told = 0
    for task in suite.tasks():
        there = b"\n".join(task.tree.file(path).content for path in task.tree.paths)
        new = [line for line in added_lines(suite.bugs[task.id].patch) if line not in there]
        told += len(new)
        shown = repr((task.goal, task.extra, task.test_args, task.env)).encode()
        assert not [line for line in new if line in shown], task.id
        assert not [path for path in task.tree.paths if "patch" in path or ".git/" in path]
    assert told > 10  # else this shows nothing


def added_lines(patch: bytes) -> list[bytes]:
    """What a patch adds beside tests, without lines that are too short to tell anything."""
    found = []
    for part in patch.split(b"diff --git ")[1:]:
        (path, *_) = patch_paths(b"diff --git " + part)
        if not is_test_path(path):
            lines = [line[1:].strip() for line in part.splitlines() if line.startswith(b"+") and line[:3] != b"+++"]
            found += [line for line in lines if len(line) > 8]
    return found


def test_a_candidate_expects_no_test_yet(unknown: Path, world: World) -> None:
    candidates = BugsinpySuite().candidates()
    assert {task.id for task in candidates} == {bug.id for bug in world.bugs if bug.state != "unreadable"}
    assert all(task.expected_tests == () and task.test_args for task in candidates)


# ---- versions


def test_the_same_selection_has_the_same_version_and_another_another(validated: Path) -> None:
    versions = {
        name: load(name).version for name in ("bugsinpy", "bugsinpy+failures", "bugsinpy:tally", "bugsinpy:ferry")
    }
    assert versions == {name: load(name).version for name in versions}
    assert len(set(versions.values())) == len(versions)


def test_a_version_is_of_the_tasks_whatever_they_were_selected_by(validated: Path) -> None:
    whole, part = load("bugsinpy"), load("bugsinpy:ferry")
    assert whole.version_of(ids(part)) == part.version == whole.version_of(list(reversed(ids(part))))


@pytest.mark.parametrize("field", ["expected", "failing"])
def test_a_version_differs_with_the_tests_and_not_with_what_was_measured(
    validated: Path, states: dict[str, BugStatus], field: str
) -> None:
    before = {name: load(name).version for name in ("bugsinpy:tally", "bugsinpy:ferry")}
    write_status(validated, {"tally-1": states["tally-1"].model_copy(update={"run_s": 9.0, "why": "slow"})})
    assert {name: load(name).version for name in before} == before
    known = states["tally-1"]
    more = {"expected": (*known.expected, "another")} | ({field: ("another",)} if field == "failing" else {})
    write_status(validated, {"tally-1": known.model_copy(update=more)})
    assert load("bugsinpy:tally").version != before["bugsinpy:tally"]
    assert load("bugsinpy:ferry").version == before["bugsinpy:ferry"]


def test_a_file_of_a_part_loads_until_the_tests_are_others(
    validated: Path, states: dict[str, BugStatus], tmp_path: Path
) -> None:
    assert main(["split", "bugsinpy:tally", "--test-size", "3", "--out", str(tmp_path)]) == 0
    names = ["bugsinpy_tally_suite", "bugsinpy_tally_train_suite", "bugsinpy_tally_test_suite"]
    loaded = [load(str(tmp_path / f"{name}.json")) for name in names]
    assert [len(suite.tasks()) for suite in loaded] == [9, 6, 3]
    task = loaded[2].tasks()[0]
    assert loaded[2].reference(task) is not None
    changed = {task.id: states[task.id].model_copy(update={"expected": (*states[task.id].expected, "another")})}
    write_status(validated, changed)
    with pytest.raises(UsageError, match=r"^suite file \S+ is for version \w+ of bugsinpy:tally, not \w+$"):
        load(str(tmp_path / "bugsinpy_tally_test_suite.json"))
    assert len(load(str(tmp_path / "bugsinpy_tally_train_suite.json")).tasks()) == 6


# ---- splits and groups


def test_a_bug_belongs_to_the_same_part_whatever_is_selected_or_validated(
    validated: Path, states: dict[str, BugStatus]
) -> None:
    whole = load("bugsinpy")
    parts = {task.id: whole.split_of(task) for task in whole.tasks()}
    assert set(parts.values()) == {"train", "test"}
    for name in ("bugsinpy:tally", "bugsinpy:ferry", "bugsinpy:tally-14", "bugsinpy+failures"):
        suite = load(name)
        assert {task.id: suite.split_of(task) for task in suite.tasks()}.items() <= parts.items()
    write_status(validated, {"tally-1": BugStatus(bug="tally-1", state=State.FLAKY)})
    fewer = load("bugsinpy")
    assert {task.id: fewer.split_of(task) for task in fewer.tasks()}.items() <= parts.items()


def test_a_file_tells_parts_and_projects_as_the_whole_does(validated: Path, tmp_path: Path) -> None:
    assert main(["split", "bugsinpy", "--test-size", "5", "--out", str(tmp_path)]) == 0
    whole, part = load("bugsinpy"), load(str(tmp_path / "bugsinpy_test_suite.json"))
    for task in part.tasks():
        assert part.group_of(task) == whole.group_of(task) == task.extra["project"]
        assert part.split_of(task) == whole.split_of(task)


def test_a_split_by_project_keeps_projects_whole(validated: Path, tmp_path: Path) -> None:
    assert main(["split", "bugsinpy", "--by", "project", "--out", str(tmp_path)]) == 0
    parts = [json.loads((tmp_path / f"bugsinpy_{part}_suite.json").read_text()) for part in ("train", "test")]
    projects = [{task.rpartition("-")[0] for task in part["tasks"]} for part in parts]
    assert sorted(map(sorted, projects)) == [["ferry"], ["tally"]]
    assert parts[0]["made_by"] == "repo-agent suites split bugsinpy --by project --test-size 3"


def test_one_project_cannot_be_split_by_project(validated: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^1 projects do not make two parts with about \d+ tasks to test on$"):
        main(["split", "bugsinpy:ferry", "--by", "project", "--out", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


def test_a_suite_without_projects_cannot_be_split_by_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^suite minibugs has no projects to split by$"):
        main(["split", "minibugs", "--by", "project", "--out", str(tmp_path)])


# ---- environments


def test_bugs_with_the_same_environment_share_it_and_those_that_cannot_be_played_have_none(unknown: Path) -> None:
    environments = BugsinpySuite().environments()
    named = [bug for bugs in environments.values() for bug in bugs]
    assert len(named) == len(set(named))
    assert "tally-12" not in named
    assert any(len(bugs) > 5 for bugs in environments.values())
