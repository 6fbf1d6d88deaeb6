"""The tree as a value: identity, undo, paths, symbolic links, patches."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxes.workspace import DirectoryTree, File, MappingTree, Mode, PathError, Workspace, clean_path

Edits = Sequence[tuple[str, bytes | None]]
NAMES = st.sampled_from(["a", "b.py", "c d", "é", "-x", "B"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TEXTS = st.text(st.sampled_from("ab\n\r\x0c\u2028é "), max_size=12)
CONTENTS = TEXTS.map(str.encode)


def consistent(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Without the files that another path needs as a folder."""
    folders = {path[:at] for path in files for at, letter in enumerate(path) if letter == "/"}
    return {path: content for path, content in files.items() if path not in folders}


TREES = st.dictionaries(PATHS, CONTENTS, max_size=6).map(consistent)
EDITS = st.lists(st.tuples(PATHS, CONTENTS | st.none()), max_size=6)


def edited(workspace: Workspace, edits: Edits) -> Workspace:
    """As many of the edits as are possible."""
    for path, content in edits:
        try:
            workspace = workspace.remove(path) if content is None else workspace.write(path, content)
        except (KeyError, PathError):
            continue
    return workspace


def content_of(workspace: Workspace) -> dict[str, bytes]:
    return {path: workspace.file(path).content for path in workspace.paths}


# ---- identity


@given(TREES, EDITS, PATHS, CONTENTS)
def test_undoing_a_write_restores_the_identity(files: dict[str, bytes], edits: Edits, path: str, new: bytes) -> None:
    before = edited(Workspace(MappingTree(files)), edits)
    after = edited(before, [(path, new)])
    undone = edited(after, [(path, before.file(path).content if path in before else None)])
    assert undone.digest == before.digest
    assert content_of(undone) == content_of(before)


@given(TREES, EDITS)
def test_digests_are_equal_exactly_for_equal_trees(files: dict[str, bytes], edits: Edits) -> None:
    base = Workspace(MappingTree(files))
    after = edited(base, edits)
    assert (after.digest == base.digest) == (content_of(after) == content_of(base))


@given(TREES, EDITS)
def test_edits_that_equal_the_base_vanish(files: dict[str, bytes], edits: Edits) -> None:
    base = Workspace(MappingTree(files))
    after = edited(base, edits)
    for path in [path for path in after.paths if path not in base]:
        after = after.remove(path)
    for path, content in files.items():
        after = after.write(path, content)
    assert not after.edits
    assert after.digest == base.digest


@given(TREES, st.dictionaries(PATHS, CONTENTS, max_size=5).map(consistent))
def test_order_of_writes_does_not_matter(files: dict[str, bytes], writes: dict[str, bytes]) -> None:
    base = Workspace(MappingTree({path: content for path, content in files.items() if path in writes}))
    order = list(writes.items())
    assert edited(base, order).digest == edited(base, order[::-1]).digest
    assert content_of(edited(base, order)) == writes


@given(TREES, EDITS)
def test_paths_are_sorted_and_agree_with_the_files(files: dict[str, bytes], edits: Edits) -> None:
    after = edited(Workspace(MappingTree(files)), edits)
    assert list(after.paths) == sorted(set(after.paths))
    for path in {*files, *(path for path, _ in edits)}:
        assert (path in after) == (path in after.paths)
        for at, letter in enumerate(path):
            if letter == "/":
                folder = path[:at]
                assert list(after.below(folder)) == [each for each in after.paths if each.startswith(folder + "/")]
                assert after.is_directory(folder) == bool(list(after.below(folder)))


def test_fork_is_not_changed_by_the_other() -> None:
    base = Workspace(MappingTree({"a": b"1"}))
    left, right = base.write("a", b"2"), base.write("b", b"3")
    assert (content_of(base), content_of(left), content_of(right)) == ({"a": b"1"}, {"a": b"2"}, {"a": b"1", "b": b"3"})


def test_mode_is_part_of_the_identity_and_is_kept_by_a_write() -> None:
    script = Workspace(MappingTree({"run.sh": File(b"x", Mode.EXECUTABLE)}))
    assert script.digest != Workspace(MappingTree({"run.sh": b"x"})).digest
    assert script.write("run.sh", b"y").file("run.sh") == File(b"y", Mode.EXECUTABLE)


# ---- a tree over a directory


def test_directory_and_mapping_of_the_same_files_have_the_same_digest(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "a.py").write_bytes(b"a")
    (tmp_path / "run.sh").write_bytes(b"r")
    (tmp_path / "run.sh").chmod(0o755)
    (tmp_path / "link").symlink_to("pkg/a.py")
    files: dict[str, File | bytes] = {
        "pkg/a.py": b"a",
        "run.sh": File(b"r", Mode.EXECUTABLE),
        "link": File(b"pkg/a.py", Mode.SYMLINK),
    }
    tree = DirectoryTree(tmp_path)
    assert tree.paths == ("link", "pkg/a.py", "run.sh")
    assert tree.digest == MappingTree(files).digest


def test_directory_tree_never_follows_links_of_the_host(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    root = tmp_path / "root"
    root.mkdir()
    (root / "to-file").symlink_to(outside / "secret")
    (root / "to-folder").symlink_to("../outside")
    (root / "loop").symlink_to(".")
    tree = Workspace(DirectoryTree(root))
    assert tree.paths == ("loop", "to-file", "to-folder")
    assert all(tree.file(path).mode is Mode.SYMLINK for path in tree.paths)
    for path in ("to-file", "to-folder/secret"):
        with pytest.raises(PathError, match="leaves the repository"):
            tree.read(path)
    with pytest.raises(KeyError):
        tree.file("to-folder/secret")


def test_directory_tree_leaves_out_skipped_folders_and_what_is_no_file(tmp_path: Path) -> None:
    for name in (".git/config", "pkg/__pycache__/a.pyc", "pkg/a.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    os.mkfifo(tmp_path / "pipe")
    assert DirectoryTree(tmp_path).paths == ("pkg/a.py",)


# ---- symbolic links of the tree


LINKS = Workspace(
    MappingTree(
        {
            "pkg/deep/a.txt": b"content",
            "file": File(b"pkg/deep/a.txt", Mode.SYMLINK),
            "folder": File(b"pkg/deep", Mode.SYMLINK),
            "pkg/up": File(b"../file", Mode.SYMLINK),
            "chain": File(b"folder/../up", Mode.SYMLINK),
            "out": File(b"../etc/passwd", Mode.SYMLINK),
            "pkg/deep/out": File(b"../../../x", Mode.SYMLINK),
            "absolute": File(b"/etc/passwd", Mode.SYMLINK),
            "loop-a": File(b"loop-b", Mode.SYMLINK),
            "loop-b": File(b"loop-a", Mode.SYMLINK),
            "self": File(b"self/self", Mode.SYMLINK),
            "dangling": File(b"nowhere", Mode.SYMLINK),
        }
    )
)


@pytest.mark.parametrize("path", ["file", "folder/a.txt", "pkg/up", "pkg/deep/a.txt"])
def test_links_inside_the_tree_are_followed(path: str) -> None:
    assert LINKS.resolve(path) == "pkg/deep/a.txt"
    assert LINKS.read(path) == b"content"


def test_link_through_a_linked_folder_goes_where_the_file_system_goes() -> None:
    assert LINKS.resolve("chain") == "pkg/deep/a.txt"


@pytest.mark.parametrize("path", ["out", "pkg/deep/out", "absolute", "folder/out", "absolute/x"])
def test_links_that_leave_the_tree_are_refused(path: str) -> None:
    with pytest.raises(PathError, match="leaves the repository"):
        LINKS.read(path)


@pytest.mark.parametrize("path", ["loop-a", "self", "loop-a/x"])
def test_loops_of_links_are_refused(path: str) -> None:
    with pytest.raises(PathError, match="too many symbolic links"):
        LINKS.read(path)


def test_dangling_link_names_no_file() -> None:
    with pytest.raises(KeyError):
        LINKS.read("dangling")


@pytest.mark.parametrize(
    "path", ["file", "dangling", "folder/new.txt", "file/x", "pkg/deep", "pkg/deep/a.txt/x", "a//b", "../x", "."]
)
def test_write_at_a_link_a_folder_or_under_a_file_is_refused(path: str) -> None:
    with pytest.raises(PathError):
        LINKS.write(path, b"x")


# ---- paths


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "~/x",
        "a/../../b",
        "..",
        "a\\b",
        "a\0b",
        "C:/x",
        "a\nb",
        "x/" * 600,
        "y" * 300,
        "é" * 200,
        "\ud800",
    ],
)
def test_clean_path_refuses(path: str) -> None:
    with pytest.raises(PathError):
        clean_path(path)


@pytest.mark.parametrize(
    ("path", "clean"), [("", "."), ("./", "."), ("a//b/./c/", "a/b/c"), ("é/ü", "é/ü"), ("a b", "a b")]
)
def test_clean_path_normalises(path: str, clean: str) -> None:
    assert clean_path(path) == clean


@given(st.text(st.characters(exclude_categories=[])))
def test_clean_path_gives_a_canonical_path_or_refuses(path: str) -> None:
    try:
        clean = clean_path(path)
    except PathError as error:
        assert str(error).encode()
        return
    assert clean_path(clean) == clean
    assert not clean.startswith("/")
    assert ".." not in clean.split("/")


# ---- patches


def laid_out(workspace: Workspace, root: Path) -> None:
    for path in workspace.paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(workspace.file(path).content)


@settings(max_examples=25)
@given(TREES, EDITS)
def test_diff_applies_with_git(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], edits: Edits) -> None:
    root = tmp_path_factory.mktemp("patch")
    base = Workspace(MappingTree(files))
    after = edited(base, edits)
    laid_out(base, root)
    if not after.edits:
        assert after.diff() == ""
        return
    command = ["git", "apply", "--whitespace=nowarn", "-"]
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(root.parent), "GIT_CONFIG_GLOBAL": "/dev/null"}
    done = subprocess.run(
        command, cwd=root, input=after.diff().encode(), capture_output=True, env=environment, check=False
    )
    assert done.returncode == 0, (done.stderr, after.diff())
    assert {path: DirectoryTree(root).file(path).content for path in DirectoryTree(root).paths} == content_of(after)


def test_diff_applies_with_patch(tmp_path: Path) -> None:
    base = Workspace(MappingTree({"pkg/a.py": b"one\ntwo\nthree\n", "b.txt": b"no newline", "gone.py": b"x\n"}))
    after = (
        base.write("pkg/a.py", b"one\n2\nthree\n").write("b.txt", b"now\n").write("new/c.py", b"c").remove("gone.py")
    )
    laid_out(base, tmp_path)
    subprocess.run(["patch", "-p1", "--quiet"], cwd=tmp_path, input=after.diff().encode(), check=True)
    assert {path: DirectoryTree(tmp_path).file(path).content for path in DirectoryTree(tmp_path).paths} == content_of(
        after
    )


def test_diff_names_binary_files_only() -> None:
    base = Workspace(MappingTree({"a.bin": b"\xff\xfe", "b.bin": b"text"}))
    diff = base.write("a.bin", b"\0").write("b.bin", b"\0").diff()
    assert "Binary files a/a.bin and b/a.bin differ" in diff
    assert "Binary files a/b.bin and b/b.bin differ" in diff


def test_diff_of_a_removed_script_and_link_keeps_their_modes(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("x\n")
    (tmp_path / "run.sh").chmod(0o755)
    (tmp_path / "link").symlink_to("run.sh")
    after = Workspace(DirectoryTree(tmp_path)).remove("run.sh").remove("link")
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(tmp_path.parent)}
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=after.diff().encode(), check=True, env=environment)
    assert not list(tmp_path.iterdir())
