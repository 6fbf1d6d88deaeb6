"""A bug's trees: the fixed commit without the fix, in the small world and in histories made to be difficult."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.grading import graded_tree
from harness.records import Task
from sandboxes.base import SandboxError
from sandboxes.python_spec import PythonSpec
from sandboxes.workspace import File, MappingTree, Mode, Workspace
from suites.bugsinpy.bug import Bug
from suites.bugsinpy.paths import PROTECTED, is_documentation, is_test_path
from suites.bugsinpy.suite import BugsinpySuite
from suites.bugsinpy.trees import BugTrees, bug_trees, read_trees, repaired, tree_files, write_trees
from suites.fetch import git_files, git_repository
from tests.bugsinpy_world import World, build_world
from tests.git_work import Work

pytestmark = pytest.mark.slow

NOT_A_COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module", autouse=True)
def cache(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REPO_AGENT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("REPO_AGENT_BUGSINPY", f"{world.metadata}@{world.commit}")
        yield


@pytest.fixture(scope="module")
def suite(cache: None, world: World) -> BugsinpySuite:
    return BugsinpySuite(world.mirror)


@pytest.fixture(scope="module")
def tasks(suite: BugsinpySuite) -> dict[str, Task]:
    """Those whose repository can be had."""
    return {task.id: task for task in suite.candidates() if task.extra["project"] != "ghost"}


Files = dict[str, File]
CommitFiles = Callable[[str, str], Files]


@pytest.fixture(scope="module")
def commit_files(world: World) -> CommitFiles:
    """The files of a bug's `buggy` or `fixed` commit."""

    @functools.cache
    def read(bug: str, which: str) -> Files:
        commits = {"buggy": world.bug(bug).buggy_commit, "fixed": world.bug(bug).fixed_commit}
        repository = git_repository(world.bug(bug).repository, list(commits.values()), world.mirror)
        return git_files(repository, commits[which])

    return read


def files_of(tree: Workspace) -> Files:
    return {path: tree.file(path) for path in tree.paths}


# ---- in the small world


def test_tests_and_fixtures_are_those_of_the_fixed_commit(commit_files: CommitFiles, tasks: dict[str, Task]) -> None:
    for bug, task in tasks.items():
        tests = {path: file for path, file in commit_files(bug, "fixed").items() if is_test_path(path)}
        found = {path: file for path, file in files_of(task.tree).items() if is_test_path(path)}
        assert {path: found[path] for path in tests} == tests, bug
        assert set(found) - set(tests) == ({"tests/__init__.py"} if bug == "tally-15" else set())


def test_documents_are_those_of_the_buggy_commit(commit_files: CommitFiles, tasks: dict[str, Task]) -> None:
    told = 0
    for bug, task in tasks.items():
        before, after = (commit_files(bug, commit) for commit in ("buggy", "fixed"))
        documents = {path for path in {*before, *after} if is_documentation(path) and not is_test_path(path)}
        there = files_of(task.tree)
        assert {path: there.get(path) for path in documents} == {path: before.get(path) for path in documents}, bug
        told += any(before.get(path) != after.get(path) for path in documents)
    assert told >= 3  # else this shows nothing


def test_the_repaired_tree_is_the_fixed_commit_but_for_documents(
    commit_files: CommitFiles, suite: BugsinpySuite, tasks: dict[str, Task]
) -> None:
    for bug, task in tasks.items():
        fixed = {path: file.content for path, file in commit_files(bug, "fixed").items()}
        found = {path: file.content for path, file in files_of(suite.reference(task)).items()}
        differing = {path for path in {*fixed, *found} if fixed.get(path) != found.get(path)}
        assert {path for path in differing if not is_documentation(path)} <= {"tests/__init__.py"}, bug


def test_a_repair_changes_what_may_be_edited_and_nothing_else(suite: BugsinpySuite, tasks: dict[str, Task]) -> None:
    for bug, task in tasks.items():
        fixed = suite.reference(task)
        assert fixed.edits, bug
        assert graded_tree(task, fixed)[1] == (), bug
        assert set(fixed.edits) == set(suite.trees_of(suite.bugs[bug]).repair), bug


def test_only_the_patch_that_does_not_reverse_is_noted(suite: BugsinpySuite, tasks: dict[str, Task]) -> None:
    notes = {bug: suite.trees_of(suite.bugs[bug]).notes for bug in tasks}
    assert [bug for bug, said in notes.items() if said] == ["tally-4"]
    assert "does not reverse" in notes["tally-4"][0]


def test_a_merge_commit_gives_the_tree_without_what_it_merged(
    commit_files: CommitFiles, tasks: dict[str, Task]
) -> None:
    tree = files_of(tasks["tally-3"].tree)
    assert tree["tally/counts.py"] == commit_files("tally-3", "buggy")["tally/counts.py"]
    assert tree["tests/test_counts.py"] == commit_files("tally-3", "fixed")["tests/test_counts.py"]


def test_a_tree_has_what_an_archive_would_leave_out_and_what_setup_touches(tasks: dict[str, Task]) -> None:
    tree = files_of(tasks["tally-15"].tree)
    assert tree["tests/__init__.py"] == File(b"")
    assert tree["bin/tally"].mode is Mode.EXECUTABLE
    assert tree["tests/data/latest.txt"] == File("größen.txt".encode(), Mode.SYMLINK)
    assert "tests/data/größen.txt" in tree


def test_a_tree_is_the_same_wherever_it_is_made(
    world: World, tasks: dict[str, Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = {bug: task.tree.digest for bug, task in tasks.items()}
    monkeypatch.setenv("REPO_AGENT_CACHE", str(tmp_path))
    there = {task.id: task.tree.digest for task in BugsinpySuite(world.mirror, ":ferry").candidates()}
    assert there.items() <= here.items()
    assert len(set(here.values())) == len(here)


def test_what_is_kept_makes_git_needless_the_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPO_AGENT_CACHE", str(tmp_path / "cache"))
    world = build_world(tmp_path)
    first = {task.id: files_of(task.tree) for task in BugsinpySuite(world.mirror, ":tally-3").candidates()}
    shutil.rmtree(tmp_path / "cache" / "git" / "inkwell" / "tally.git")
    (world.mirror / "inkwell" / "tally.bundle").unlink()
    second = BugsinpySuite(world.mirror, ":tally-3")
    assert {task.id: files_of(task.tree) for task in second.candidates()} == first
    with pytest.raises(UsageError, match=r"^the mirror \S+ has no inkwell/tally.bundle$"):
        second.reference(second.candidates()[0])


def test_a_repository_that_is_not_there_is_a_fault_of_its_bugs_only(suite: BugsinpySuite) -> None:
    (ghost,) = [task for task in suite.candidates() if task.id == "ghost-1"]
    for _ in range(2):
        with pytest.raises(SandboxError, match=r"^the mirror \S+ has no inkwell/ghost.bundle$"):
            ghost.tree.paths  # noqa: B018


# ---- difficult histories


@dataclass
class History:
    """One bug of a repository of two commits."""

    work: Work
    bug: Bug

    @property
    def repository(self) -> Path:
        return self.work.place / ".git"

    def trees(self) -> BugTrees:
        return bug_trees(self.repository, self.bug)

    def buggy(self) -> Files:
        return dict(tree_files(self.repository, self.trees().buggy))

    def repaired(self) -> Workspace:
        return repaired(self.repository, self.bug, self.trees(), Workspace(MappingTree(self.buggy())))


def history(
    place: Path, before: dict[str, bytes], after: dict[str, bytes | None], touched: tuple[str, ...] = ()
) -> History:
    """A bug whose fix is the whole difference."""
    work = Work.made(place / "work")
    buggy = work.commit({**before})
    fixed = work.commit(after)
    work.git("config", "core.bare", "true")
    patch = work.git("diff", "--binary", buggy, fixed).encode() + b"\n"
    spec = PythonSpec(python="3.8")
    bug = Bug("one", 1, "owner/one", "3.8.3", buggy, fixed, ("t",), ("t",), (".",), touched, patch, spec)
    return History(work, bug)


def test_only_the_files_named_are_taken_back_however_they_are_named(tmp_path: Path) -> None:
    odd = ["a[1].py", "a*.py", "a?.py", "größe.py", "with blank.py", "back-slash.py", "a1.py"]
    one = history(tmp_path, dict.fromkeys(odd, b"old\n"), dict.fromkeys(odd, b"new\n"))
    assert {path: file.content for path, file in one.buggy().items()} == dict.fromkeys(odd, b"old\n")
    assert set(one.trees().repair) == set(odd)


def test_a_pattern_in_a_name_takes_no_test_with_it(tmp_path: Path) -> None:
    names = ("t*.py", "test_it.py")
    one = history(tmp_path, dict.fromkeys(names, b"old\n"), dict.fromkeys(names, b"new\n"))
    assert {path: file.content for path, file in one.buggy().items()} == {"t*.py": b"old\n", "test_it.py": b"new\n"}


def test_added_removed_renamed_binary_and_windows_files_are_taken_back(tmp_path: Path) -> None:
    before = {
        "gone.py": b"gone = 1\n",
        "old_name.py": b"".join(b"line %d\n" % number for number in range(30)),
        "data.bin": b"\x00\x01old",
        "windows.py": b"x = 1\r\ny = 2\r\n",
        "no_end.py": b"x = 1",
        ".gitattributes": b"*.py text eol=lf\n",
    }
    after = {"added.py": b"new = 1\n", "gone.py": None, "old_name.py": None, "new_name.py": before["old_name.py"]}
    after |= {"data.bin": b"\x00\x01new", "windows.py": b"x = 1\r\ny = 3\r\n", "no_end.py": b"x = 2"}
    one = history(tmp_path, before, after)
    kept = {path: file.content for path, file in one.buggy().items()}
    assert kept == git_contents(one, one.bug.buggy_commit)
    assert one.trees().notes == ()
    assert {path: file.content for path, file in files_of(one.repaired()).items()} == git_contents(
        one, one.bug.fixed_commit
    )


def git_contents(one: History, commit: str) -> dict[str, bytes]:
    return {path: file.content for path, file in git_files(one.repository, commit).items()}


def test_a_fix_of_documents_only_leaves_the_tests_as_fixed(tmp_path: Path) -> None:
    before, after = {"README.md": b"old\n", "test_it.py": b"old\n"}, {"README.md": b"new\n", "test_it.py": b"new\n"}
    one = history(tmp_path, before, {**after})
    assert {path: file.content for path, file in one.buggy().items()} == before | {"test_it.py": b"new\n"}
    assert one.trees().repair == ()


def test_documents_that_the_fix_adds_are_gone_and_those_that_it_removes_are_back(tmp_path: Path) -> None:
    before = {"docs/old.md": b"old\n", "x.py": b"1\n"}
    one = history(tmp_path, before, {"docs/new.md": b"tells of the fix\n", "docs/old.md": None, "x.py": b"2\n"})
    assert {path: file.content for path, file in one.buggy().items()} == before


def test_examples_that_tests_run_are_no_documents(tmp_path: Path) -> None:
    """Here the patch leaves them out, as upstream's patches do with what is no source."""
    one = history(
        tmp_path, {"docs/example.py": b"old\n", "x.py": b"1\n"}, {"docs/example.py": b"new\n", "x.py": b"2\n"}
    )
    patch = one.work.git("diff", one.bug.buggy_commit, one.bug.fixed_commit, "--", "x.py").encode() + b"\n"
    one.bug = replace(one.bug, patch=patch)
    assert {path: file.content for path, file in one.buggy().items()} == {"docs/example.py": b"new\n", "x.py": b"1\n"}


def test_what_setup_touches_is_added_where_it_is_not_there(tmp_path: Path) -> None:
    one = history(tmp_path, {"x.py": b"1\n", "a/full.py": b"2\n"}, {"x.py": b"2\n"}, ("tests/__init__.py", "a/full.py"))
    assert one.buggy()["tests/__init__.py"] == File(b"")
    assert one.buggy()["a/full.py"].content == b"2\n"


def test_a_name_that_cannot_be_shown_is_left_out(tmp_path: Path) -> None:
    one = history(tmp_path, {"x.py": b"1\n", "a\nb.py": b"odd\n", "a\\b.py": b"odd\n"}, {"x.py": b"2\n"})
    assert set(one.buggy()) == {"x.py"}


def test_a_repair_that_may_not_be_made_is_named(tmp_path: Path) -> None:
    one = history(tmp_path, {"setup.py": b"1\n", "x.py": b"1\n"}, {"setup.py": b"2\n", "x.py": b"2\n"})
    tree = Workspace(MappingTree(one.buggy()))
    task = Task("one-1", "one", "", tree, ("**/*.py",), (), (), protected=PROTECTED)
    fixed = repaired(one.repository, one.bug, one.trees(), tree)
    assert graded_tree(task, fixed)[1] == ("setup.py",)


def test_a_repair_that_is_no_edit_of_files_is_one_line(tmp_path: Path) -> None:
    one = history(tmp_path, {"x.py": b"1\n"}, {"x.py": b"2\n"})
    tree = Workspace(MappingTree({"x.py": File(b"elsewhere", Mode.SYMLINK)}))
    with pytest.raises(UsageError, match=r"^one-1: the repair cannot be made: [^\n]*'x.py'$"):
        repaired(one.repository, one.bug, one.trees(), tree)


def test_a_file_that_becomes_a_folder_is_repaired(tmp_path: Path) -> None:
    one = history(tmp_path, {"x.py": b"1\n", "b": b"1\n"}, {"b": None, "x.py": b"2\n"})
    one.work.git("config", "core.bare", "false")
    fixed = one.work.commit({"b/c.py": b"3\n"})
    one.work.git("config", "core.bare", "true")
    patch = one.work.git("diff", one.bug.buggy_commit, fixed).encode() + b"\n"
    one.bug = replace(one.bug, fixed_commit=fixed, patch=patch)
    assert set(files_of(one.repaired())) == {"b/c.py", "x.py"}


def test_a_commit_that_git_does_not_have_is_one_line_with_the_bugs_name(tmp_path: Path) -> None:
    one = history(tmp_path, {"x.py": b"1\n"}, {"x.py": b"2\n"})
    one.bug = replace(one.bug, fixed_commit=NOT_A_COMMIT)
    with pytest.raises(UsageError, match=r"^one-1: git read-tree refuses \([^\n]*\)$"):
        one.trees()


# ---- what is kept of them


def test_what_is_kept_is_of_this_bug_only_and_a_torn_file_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPO_AGENT_CACHE", str(tmp_path / "cache"))
    one = history(tmp_path, {"x.py": b"1\n"}, {"x.py": b"2\n"})
    assert read_trees(one.bug) is None
    trees = write_trees(one.bug, one.trees())
    assert read_trees(one.bug) == trees
    assert read_trees(replace(one.bug, patch=b"another")) is None
    (file,) = (tmp_path / "cache").rglob("*.json")
    file.write_text('{"buggy": "0123')
    assert read_trees(one.bug) is None


def test_a_cache_that_refuses_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("REPO_AGENT_CACHE", str(tmp_path / "cache"))
    one = history(tmp_path, {"x.py": b"1\n"}, {"x.py": b"2\n"})
    trees = one.trees()
    assert write_trees(one.bug, trees) == trees
