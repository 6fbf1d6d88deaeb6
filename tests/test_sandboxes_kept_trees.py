"""Trees that are laid out once on a machine, whoever asks for them and however often; and as a container sees them."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sandboxes.base import Command, ExecResult, Isolation, PytestRun, Resources, Sandbox, SandboxError, Wall
from sandboxes.docker_sandbox import BASES, DockerBackend
from sandboxes.kept_trees import KeptTree, _Contents, keep, kept_directory
from sandboxes.tree_store import KEPT, TreeStore
from sandboxes.workspace import DirectoryTree, File, MappingTree, Mode, Workspace
from tests.small_disk import small_disk
from tests.test_sandboxes_docker import _Refused

TREE = MappingTree(
    {
        "a/b/plain.txt": b"plain\n",
        "a/größe.txt": b"12\n",
        "run.sh": File(b"#!/bin/sh\n", Mode.EXECUTABLE),
        "link": File(b"a/b/plain.txt", Mode.SYMLINK),
        "broken": File(b"/nowhere/at/all", Mode.SYMLINK),
    }
)
KEEPER = """
import sys, time
from sandboxes.kept_trees import keep
from sandboxes.workspace import File
def files():
    with open(sys.argv[1], "a") as asked:
        asked.write("asked\\n")
    yield "one.txt", File(b"1")
    time.sleep(float(sys.argv[2]))
    yield "two.txt", File(b"2")
keep("shared", files)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REPO_AGENT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def files_of(tree: MappingTree) -> Callable[[], Iterable[tuple[str, File]]]:
    return lambda: [(path, tree.file(path)) for path in tree.paths]


def kept(tree: MappingTree, name: str = "tree-1") -> KeptTree:
    return KeptTree(lambda: keep(name, files_of(tree)))


def visible() -> list[str]:
    """What lies in the store beside its locks."""
    return sorted(path.name for path in kept_directory().iterdir() if not path.name.endswith(".lock"))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def keeper(log: Path, pause_s: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", KEEPER, str(log), str(pause_s)])


def test_a_kept_tree_is_the_tree_that_was_given() -> None:
    tree = kept(TREE)
    assert tree.paths == TREE.paths
    assert [tree.file(path) for path in tree.paths] == [TREE.file(path) for path in TREE.paths]
    assert tree.digest == "tree-1"
    assert DirectoryTree(kept_directory() / "tree-1" / "tree").digest == TREE.digest
    with pytest.raises(KeyError):
        tree.file("../paths")


def test_modes_let_a_run_add_files_and_others_not_even_look() -> None:
    keep("tree-1", files_of(TREE))
    root = kept_directory() / "tree-1" / "tree"
    assert mode_of(kept_directory()) == 0o700
    assert {mode_of(each) for each in (root, root / "a", root / "a/b")} == {0o1777}
    assert (mode_of(root / "run.sh"), mode_of(root / "a/b/plain.txt")) == (0o755, 0o644)
    assert os.readlink(root / "broken") == "/nowhere/at/all"


def test_modes_do_not_depend_on_the_users_umask() -> None:
    before = os.umask(0o077)
    try:
        keep("tree-1", files_of(TREE))
    finally:
        os.umask(before)
    root = kept_directory() / "tree-1" / "tree"
    assert (mode_of(root / "a"), mode_of(root / "run.sh"), mode_of(root / "a/größe.txt")) == (0o1777, 0o755, 0o644)


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\n", "-x" * 101, "größe", "kept/../x"])
def test_a_name_that_is_no_plain_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not fit"):
        keep(name, files_of(TREE))
    assert not kept_directory().exists()


def test_many_threads_lay_a_tree_out_once() -> None:
    asked = []

    def files() -> Iterator[tuple[str, File]]:
        asked.append(1)
        time.sleep(0.05)
        yield from files_of(TREE)()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: keep("tree-1", files), range(8))) == {"tree-1"}
    assert len(asked) == 1
    assert visible() == ["tree-1"]


def test_one_tree_used_by_many_threads_is_found_once() -> None:
    found = []

    def find() -> str:
        found.append(1)
        time.sleep(0.05)
        return keep("tree-1", files_of(TREE))

    tree = KeptTree(find)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: tree.file("run.sh"), range(8))) == {TREE.file("run.sh")}
    assert len(found) == 1


def test_many_processes_lay_a_tree_out_once(tmp_path: Path) -> None:
    processes = [keeper(tmp_path / "log", 0.2) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "asked\n"
    assert KeptTree(lambda: "shared").paths == ("one.txt", "two.txt")


def test_a_killed_process_leaves_no_tree_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    process = keeper(tmp_path / "log", 600)
    while not list(kept_directory().glob(".shared.part-*/tree/one.txt")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert len(visible()) == 1
    assert not (kept_directory() / "shared").exists()
    keep("shared", files_of(TREE))
    assert visible() == ["shared"]
    assert KeptTree(lambda: "shared").paths == TREE.paths


def test_a_lay_out_that_fails_leaves_nothing_and_works_at_the_next_use() -> None:
    def failing() -> Iterator[tuple[str, File]]:
        yield "one.txt", File(b"1")
        raise SandboxError("no such repository")

    ways = iter([failing, files_of(TREE)])
    tree = KeptTree(lambda: keep("tree-1", next(ways)))
    with pytest.raises(SandboxError, match="no such repository"):
        tree.paths  # noqa: B018
    assert visible() == []
    assert tree.paths == TREE.paths


def test_a_tree_whose_link_is_a_folder_too_writes_nothing_through_the_link(tmp_path: Path) -> None:
    """Git stores such a tree when it is told to, and fetches it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    link = File(os.fsencode(outside), Mode.SYMLINK)
    with pytest.raises(SandboxError, match=r"^cannot keep a tree in \S+: Not a directory$"):
        keep("bad", lambda: [("a", link), ("a/b", File(b"1"))])
    with pytest.raises(SandboxError, match=r"^cannot keep a tree in \S+: File exists$"):
        keep("bad", lambda: [("a", link), ("a", File(b"1"))])
    assert os.listdir(outside) == []


def test_a_links_target_may_be_any_bytes_that_the_system_takes() -> None:
    tree = MappingTree({"link": File(b"a\xff\xfe", Mode.SYMLINK)})
    assert kept(tree).file("link") == tree.file("link")
    with pytest.raises(SandboxError, match=r"^cannot keep a tree in \S+: a symbolic link leads nowhere$"):
        keep("bad", lambda: [("link", File(b"a\0b", Mode.SYMLINK))])


def test_a_full_disk_is_one_line_and_leaves_nothing(cache: Path) -> None:
    large = MappingTree({f"d{number}/x": b"x" * 100_000 for number in range(20)})
    with small_disk(cache):
        with pytest.raises(SandboxError, match=r"^cannot keep a tree in .*trees: No space left on device$"):
            kept(large).paths  # noqa: B018
        assert visible() == []
        assert kept(TREE).paths == TREE.paths


def test_a_cache_that_cannot_be_made_is_one_line(cache: Path) -> None:
    cache.write_text("a file")
    with pytest.raises(SandboxError, match=r"^cannot keep a tree in [^\n]*$"):
        keep("tree-1", files_of(TREE))
    with pytest.raises(SandboxError, match=r"^cannot keep a tree in [^\n]*$"):
        TreeStore(cache.parent / "bases")


def test_a_relative_cache_is_mounted_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REPO_AGENT_CACHE", "here")
    assert TreeStore(tmp_path / "bases").kept == tmp_path / "here" / "trees"


def test_contents_are_held_up_to_a_bound_and_the_latest_stay(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode() * 40)
    (tmp_path / "large").write_bytes(b"x" * 1000)
    contents = _Contents(100)
    read = {name: contents.get(str(tmp_path / name)) for name in "ab"}
    assert contents.get(str(tmp_path / "a")) is read["a"]
    contents.get(str(tmp_path / "c"))
    assert contents.get(str(tmp_path / "a")) is read["a"]
    assert contents.get(str(tmp_path / "b")) is not read["b"]
    assert contents.get(str(tmp_path / "large")).content == b"x" * 1000
    assert contents._bytes == sum(len(file.content) for file in contents._files.values()) <= 100


def test_threads_that_read_one_file_count_it_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a" * 40)
    contents, start = _Contents(100), threading.Barrier(8)

    def read(_: int) -> File:
        start.wait()
        return contents.get(str(tmp_path / "a"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))
    assert contents._bytes == 40


def test_a_store_names_a_kept_tree_and_does_not_copy_it(tmp_path: Path) -> None:
    store = TreeStore(tmp_path / "bases")
    assert store.put(kept(TREE)) == f"{KEPT}/tree-1/tree"
    assert list((store.place / KEPT).iterdir()) == []


# ---- in containers

CODE = MappingTree(
    {
        "pkg/__init__.py": b"def double(number):\n    return 2 * number\n",
        "tests/test_double.py": (
            b"from pkg import double\n\n\ndef test_two():\n    assert double(2) == 4\n\n\n"
            b"def test_three():\n    assert double(3) == 6\n\n\ndef test_wrong():\n    assert double(1) == 3\n"
        ),
        "bin/tool": File(b"#!/bin/sh\necho it runs\n", Mode.EXECUTABLE),
        "shortcut": File(b"pkg/__init__.py", Mode.SYMLINK),
    }
)
LARGE = Resources(tree_by_mount=True)
MOUNT = "grep ' /work ' /proc/self/mounts | tail -n 1 | cut -d ' ' -f 3"


@pytest.fixture(params=list(Isolation))
def mounted(request: pytest.FixtureRequest, cache: Path, docker_backend: DockerBackend) -> Iterator[DockerBackend]:
    """A backend that mounts the store of this test."""
    backend = DockerBackend(isolation=request.param)
    yield backend
    backend.close()


def shell(sandbox: Sandbox, tree: Workspace, line: str) -> ExecResult:
    return sandbox.run(tree, Command(("sh", "-c", line)))


def outcomes(result: ExecResult) -> dict[str, tuple[str, str]]:
    return {record.id: (record.outcome, record.message) for record in result.records}


@pytest.mark.docker
def test_a_kept_tree_is_mounted_and_seen_as_it_is(mounted: DockerBackend) -> None:
    with mounted.open(LARGE) as sandbox:
        tree = Workspace(kept(CODE))
        said = shell(sandbox, tree, f"find . -type f -o -type l | sort; readlink shortcut; bin/tool; {MOUNT}")
        *listing, link, ran, mount = said.output.splitlines()
        assert listing == [f"./{path}" for path in CODE.paths]
        assert (link, ran) == ("pkg/__init__.py", "it runs")
        assert mount == "overlay"


@pytest.mark.docker
def test_edits_lie_over_a_kept_tree_and_leave_it_alone(mounted: DockerBackend) -> None:
    tree = Workspace(kept(CODE))
    edited = tree.write("pkg/__init__.py", b"edited\n").write("new/file.txt", b"new\n").remove("bin/tool")
    with mounted.open(LARGE) as sandbox:
        said = shell(sandbox, edited, "cat pkg/__init__.py new/file.txt; ls -d bin").output
        assert said.splitlines()[:2] == ["edited", "new"]
        assert "No such file" in said
        assert shell(sandbox, tree, "ls; cat pkg/__init__.py").output.startswith("bin\npkg\nshortcut\ntests\ndef ")
    assert DirectoryTree(kept_directory() / "tree-1" / "tree").digest == CODE.digest


@pytest.mark.docker
def test_a_run_adds_files_anywhere_changes_none_and_the_next_sees_nothing(mounted: DockerBackend) -> None:
    tree = Workspace(kept(CODE))
    with mounted.open(LARGE) as sandbox:
        added = "for d in . pkg tests bin; do echo 1 > $d/added || echo CANNOT; done; find . -name added | wc -l"
        assert shell(sandbox, tree, added).output.split() == ["4"]
        for attempt in ("echo x >> pkg/__init__.py", "rm pkg/__init__.py", "mv pkg gone", "chmod 777 bin/tool"):
            assert shell(sandbox, tree, attempt).exit_code != 0, attempt
        assert shell(sandbox, tree, "find . -name added").output == ""
    assert DirectoryTree(kept_directory() / "tree-1" / "tree").digest == CODE.digest


@pytest.mark.docker
def test_a_run_cannot_see_the_other_trees_of_the_store(mounted: DockerBackend) -> None:
    keep("another", files_of(MappingTree({"secret.txt": b"secret\n"})))
    places = [f"{BASES}/{KEPT}", f"{BASES}/{KEPT}/another/tree", f"/proc/1/root{BASES}/{KEPT}/another/tree"]
    with mounted.open(LARGE) as sandbox:
        for place in places:
            result = shell(sandbox, Workspace(kept(CODE)), f"ls {place} && cat {place}/secret.txt")
            assert result.exit_code != 0
            assert "secret.txt" not in result.output.splitlines()
        seen = shell(sandbox, Workspace(kept(CODE)), "find / -name secret.txt 2>/dev/null; cat /proc/self/mountinfo")
        assert "secret" not in seen.output


@pytest.mark.docker
@pytest.mark.parametrize("cold", [False, True])
@pytest.mark.slow
def test_verdicts_are_those_of_a_copied_tree_with_relative_paths(mounted: DockerBackend, cold: bool) -> None:
    run = Command(PytestRun(("tests/test_double.py",), scoring=True, cold=cold))
    with mounted.open(LARGE) as by_mount, mounted.open(Resources()) as by_copy:
        one, two = by_mount.run(Workspace(kept(CODE)), run), by_copy.run(Workspace(CODE), run)
    assert outcomes(one) == outcomes(two)
    assert [outcome for outcome, _ in outcomes(one).values()] == ["passed", "passed", "failed"]
    assert next(iter(outcomes(one))) == "tests/test_double.py::test_two"
    assert "/work" not in str(outcomes(one))
    assert BASES not in str(outcomes(one)) + one.output
    assert (one.tampered, one.canaries_missing) == ("", False)


@pytest.mark.docker
@pytest.mark.parametrize("isolation", list(Isolation))
@pytest.mark.slow
def test_where_namespaces_are_refused_the_tree_is_copied(isolation: Isolation, docker_backend: DockerBackend) -> None:
    keep("another", files_of(MappingTree({"secret.txt": b"secret\n"})))
    backend, tree = _Refused(isolation=isolation), Workspace(kept(CODE))
    try:
        with backend.open(LARGE) as sandbox:
            assert backend.promises.wall is Wall.USER
            result = sandbox.run(tree.write("pkg/__init__.py", b"double = (2).__mul__\n"), Command(PytestRun()))
            assert [outcome for outcome, _ in outcomes(result).values()] == ["passed", "passed", "failed"]
            assert shell(sandbox, tree, MOUNT).output == "tmpfs\n"
            assert shell(sandbox, tree, f"ls {BASES}/{KEPT}/another/tree").exit_code != 0
    finally:
        backend.close()


@pytest.mark.docker
@pytest.mark.slow
def test_an_engine_that_cannot_see_our_files_gets_a_kept_tree_sent(mounted: DockerBackend, tmp_path: Path) -> None:
    mounted._store.place = tmp_path / "on-another-machine"
    with mounted.open(LARGE) as sandbox:
        assert not sandbox.hello["mounted"]
        assert shell(sandbox, Workspace(kept(CODE)), "bin/tool").output == "it runs\n"
