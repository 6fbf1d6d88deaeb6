"""The small BugsInPy world keeps its promises: checked with git and this Python's pytest, without any of our suites."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.bugsinpy_subjects.records import State, SubjectBug
from tests.bugsinpy_world import SUBJECTS, World, WorldBug, build_world, git, main

SOURCES = {f"{subject.project}-{bug.number}": bug for subject in SUBJECTS for bug in subject.bugs}
TEST_PATHS = ("tests", "ferry/test")
DOES_NOT_REVERSE = "tally-4"
UTF_8 = {"LC_ALL": "C.UTF-8"}
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
MakeTree = Callable[[WorldBug, str], Path]


def ids_of(*states: State) -> list[str]:
    return [task_id for task_id, bug in SOURCES.items() if bug.state in states]


WITH_A_PATCH = [task_id for task_id in SOURCES if task_id not in ("tally-11", "ghost-1")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def metadata(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    clone = tmp_path_factory.mktemp("metadata") / "clone"
    git(Path.cwd(), "clone", "--quiet", str(world.repository(world.metadata)), str(clone))
    return clone


@pytest.fixture(scope="module")
def make_tree(world: World, tmp_path_factory: pytest.TempPathFactory) -> MakeTree:
    """Makes trees of commits, each a new one."""
    place = tmp_path_factory.mktemp("trees")

    @cache
    def clone(repository: str) -> Path:
        target = place / repository.replace("/", "+")
        git(place, "clone", "--quiet", "--no-checkout", str(world.repository(repository)), str(target))
        return target

    def make(bug: WorldBug, commit: str) -> Path:
        tree = place / f"{bug.id}-{sum(1 for _ in place.iterdir())}"
        git(clone(bug.repository), "worktree", "add", "--quiet", "--detach", str(tree), commit)
        return tree

    return make


def patch_of(metadata: Path, bug: WorldBug) -> Path:
    project, number = bug.id.rsplit("-", 1)
    return metadata / "projects" / project / "bugs" / number / "bug_patch.txt"


def apply(tree: Path, patch: Path, *options: str) -> None:
    excluded = [f"--exclude={path}/*" for path in TEST_PATHS]
    git(tree, "apply", "--whitespace=nowarn", *excluded, *options, str(patch))


def fixed_tree(bug: WorldBug, make_tree: MakeTree) -> Path:
    tree = make_tree(bug, bug.fixed_commit)
    if "touch tests/__init__.py" in bug.irregular:
        (tree / "tests" / "__init__.py").touch()
    return tree


def buggy_tree(bug: WorldBug, make_tree: MakeTree, metadata: Path) -> Path:
    """The fixed tree without the fix; for the patch that does not reverse, the buggy commit with the fixed tests."""
    if bug.id == DOES_NOT_REVERSE:
        tree = make_tree(bug, bug.buggy_commit)
        git(tree, "checkout", "--quiet", bug.fixed_commit, "--", "tests")
        return tree
    tree = fixed_tree(bug, make_tree)
    apply(tree, patch_of(metadata, bug), "--reverse")
    return tree


def passed(tree: Path, source: SubjectBug, locale: dict[str, str] = UTF_8) -> set[str]:
    """The ids that pass when the tests of run_test.sh are run by pytest."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": ".", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", **locale}
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "--tb=no", "-p", "no:cacheprovider", *arguments(source)]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True)
    lines = done.stdout.decode(errors="replace").splitlines()
    return {line.removeprefix("PASSED ").split(" - ")[0] for line in lines if line.startswith("PASSED ")}


def arguments(source: SubjectBug) -> list[str]:
    """The tests that run_test.sh names, for pytest."""
    words = source.run.replace(";", " ").split()
    return [_of_unittest(word) for word in words if ".py" in word or word.startswith("ferry.test.")]


def _of_unittest(name: str) -> str:
    if "/" in name:
        return name
    package, test, module, *rest = name.split(".")
    return "::".join([f"{package}/{test}/{module}.py", *rest])


def test_the_same_commits_come_out_twice(world: World, tmp_path: Path) -> None:
    again = build_world(tmp_path)
    assert (again.commit, again.bugs) == (world.commit, world.bugs)


def test_the_users_git_configuration_makes_no_difference(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(
        "[user]\nname = x\n[init]\ndefaultObjectFormat = sha256\n[diff]\nnoprefix = true\ncontext = 0\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "config"))
    monkeypatch.setenv("GIT_AUTHOR_NAME", "x")
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert build_world(tmp_path / "world").commit == world.commit


def test_both_forms_of_a_mirror_occur_and_one_subject_is_missing(world: World) -> None:
    assert sorted(path.name for path in (world.mirror / "inkwell").iterdir()) == [
        "bugs.bundle",
        "ferry",
        "tally.bundle",
    ]


@pytest.mark.parametrize("name", ["inkwell/tally", "inkwell/ferry", "inkwell/bugs"])
def test_git_finds_no_fault_in_a_repository(world: World, tmp_path: Path, name: str) -> None:
    git(tmp_path, "clone", "--quiet", "--mirror", str(world.repository(name)), "clone.git")
    assert git(tmp_path / "clone.git", "fsck", "--strict", "--full") == b""


def test_every_bug_directory_has_the_files_of_the_format(world: World, metadata: Path) -> None:
    for bug in world.bugs:
        there = {path.name for path in patch_of(metadata, bug).parent.iterdir()}
        optional = {"requirements.txt", "setup.sh"}
        assert there - optional == {"bug.info", "bug_patch.txt", "run_test.sh"}, bug.id
        assert ("requirements.txt" in there) == ("no requirements.txt" not in bug.irregular), bug.id


def test_requirements_are_utf_16_or_empty_where_the_bug_says_so(world: World, metadata: Path) -> None:
    for bug in world.bugs:
        path = patch_of(metadata, bug).with_name("requirements.txt")
        content = path.read_bytes() if path.exists() else None
        assert (content == b"") == ("empty requirements" in bug.irregular), bug.id
        is_utf_16 = content is not None and content.startswith(b"\xff\xfe") and b"\r\0\n\0" in content
        assert is_utf_16 == ("UTF-16 requirements" in bug.irregular), bug.id


def test_only_the_rejected_bug_has_an_empty_patch(world: World, metadata: Path) -> None:
    assert [bug.id for bug in world.bugs if not patch_of(metadata, bug).read_bytes()] == ["tally-11"]


def test_patches_touch_tests_only_where_the_bug_says_so(world: World, metadata: Path) -> None:
    for bug in world.bugs:
        touches = any(f"+++ b/{path}/".encode() in patch_of(metadata, bug).read_bytes() for path in TEST_PATHS)
        assert touches == ("patch touches tests" in bug.irregular), bug.id


@pytest.mark.parametrize("task_id", WITH_A_PATCH)
def test_a_patch_leads_from_buggy_to_fixed_except_the_one_that_is_named(
    task_id: str, world: World, metadata: Path, make_tree: MakeTree
) -> None:
    bug = world.bug(task_id)
    forward, backward = (make_tree(bug, commit) for commit in (bug.buggy_commit, bug.fixed_commit))
    if task_id == DOES_NOT_REVERSE:
        for tree, option in ((forward, "--check"), (backward, "--reverse")):
            with pytest.raises(subprocess.CalledProcessError):
                apply(tree, patch_of(metadata, bug), option)
    else:
        apply(forward, patch_of(metadata, bug))
        apply(backward, patch_of(metadata, bug), "--reverse")


def test_the_merge_commit_has_no_diff_of_its_own(world: World, make_tree: MakeTree) -> None:
    bug = world.bug("tally-3")
    tree = make_tree(bug, bug.fixed_commit)
    assert len(git(tree, "log", "-1", "--format=%P").split()) == 2
    assert git(tree, "show", "--format=", bug.fixed_commit) == b""


def test_git_archive_leaves_out_the_tests_that_the_repository_has(world: World, make_tree: MakeTree) -> None:
    bug = world.bug("tally-15")
    tree = make_tree(bug, bug.fixed_commit)
    assert b"tests/test_lists.py" in git(tree, "ls-tree", "-r", "--name-only", "HEAD")
    assert b"tests/test_lists.py" not in git(tree, "archive", "HEAD")


@pytest.mark.slow
@pytest.mark.parametrize("task_id", ids_of("reproduced", "flaky", "buggy_passes", "fixed_fails", "needs_latin1"))
def test_outcomes_are_as_promised(task_id: str, world: World, metadata: Path, make_tree: MakeTree) -> None:
    bug = world.bug(task_id)
    on_fixed = passed(fixed_tree(bug, make_tree), SOURCES[task_id])
    on_buggy = passed(buggy_tree(bug, make_tree, metadata), SOURCES[task_id])
    assert on_fixed - set(bug.flaky) == set(bug.expected)
    assert on_buggy - set(bug.flaky) == set(bug.passing)
    assert len(on_fixed & set(bug.flaky)) == (1 if bug.flaky else 0)


@pytest.mark.slow
@pytest.mark.parametrize("task_id", ids_of("needs_latin1"))
def test_it_fails_on_the_buggy_tree_under_a_locale_without_utf_8(
    task_id: str, world: World, metadata: Path, make_tree: MakeTree
) -> None:
    bug = world.bug(task_id)
    assert passed(fixed_tree(bug, make_tree), SOURCES[task_id], ASCII) == set(bug.passing)
    assert passed(buggy_tree(bug, make_tree, metadata), SOURCES[task_id], ASCII) == set()


def test_lists_cannot_be_tested_without_the_file_that_setup_touches(world: World, make_tree: MakeTree) -> None:
    bug = world.bug("tally-15")
    assert passed(make_tree(bug, bug.fixed_commit), SOURCES[bug.id]) == set()


def test_the_command_prints_what_to_set(tmp_path: Path, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "new")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"REPO_AGENT_MIRROR={tmp_path / 'new' / 'mirror'}",
        f"REPO_AGENT_BUGSINPY={world.metadata}@{world.commit}",
    ]
