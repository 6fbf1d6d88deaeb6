"""Checks of the tree that a run finds: exactly the workspace's files, whatever the runs before had."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sandboxes.base import Command
from sandboxes.conformance.checking import Check, Place, json_of, python, same, sh, tree_of
from sandboxes.workspace import File, Mode, Workspace

LISTING = """
import hashlib, json, os
found = {}
for folder, folders, names in os.walk("."):
    for name in names + [name for name in folders if os.path.islink(os.path.join(folder, name))]:
        path = os.path.relpath(os.path.join(folder, name), ".")
        if os.path.islink(path):
            found[path] = ["120000", os.readlink(path)]
        else:
            mode = "100755" if os.stat(path).st_mode & 0o111 == 0o111 else "100644"
            found[path] = [mode, hashlib.sha256(open(path, "rb").read()).hexdigest()]
    if not names and not folders:
        found[os.path.relpath(folder, ".") + "/"] = ["empty folder", ""]
print(json.dumps(found))
"""
DEMO = tree_of(
    {
        "pkg/__init__.py": "",
        "pkg/deep/data.txt": "data\n",
        "run.sh": File(b"#!/bin/sh\necho ran\n", Mode.EXECUTABLE),
        "link": File(b"pkg/deep/data.txt", Mode.SYMLINK),
        "tests/test_one.py": "def test_one():\n    assert True\n",
    }
)


def listing(tree: Workspace) -> dict[str, list[str]]:
    """What a listing of the tree must say."""
    found = {}
    for path in tree.paths:
        file = tree.file(path)
        link = file.mode is Mode.SYMLINK
        found[path] = [file.mode.value, file.content.decode() if link else hashlib.sha256(file.content).hexdigest()]
    return found or {"./": ["empty folder", ""]}


def laid_out(place: Place, trees: Sequence[Workspace]) -> None:
    """Each tree in turn is what a run in the shared sandbox finds."""
    for number, tree in enumerate(trees):
        same(f"tree {number}", json_of(python(place.sandbox, LISTING, tree=tree)), listing(tree))


def tree_is_laid_out(place: Place) -> None:
    """Files with their bytes and executable bits, symbolic links as links, and nothing else."""
    odd: dict[str, str | bytes | File] = {
        "empty": "",
        "binary": bytes(range(256)) * 4096,
        "with space/-dash/é✓ 'quoted\".txt": "x",
        ".hidden/.file": "x",
        "/".join(["deep"] * 60): "x",
        "dangling": File(b"no/where", Mode.SYMLINK),
        "folder link": File(b".hidden", Mode.SYMLINK),
        "away": File(b"/etc/passwd", Mode.SYMLINK),
        "tool": File(b"#!/bin/sh\n", Mode.EXECUTABLE),
    }
    laid_out(place, [DEMO, tree_of(odd), tree_of({})])
    same("a program of the tree", sh(place.sandbox, "./run.sh", tree=DEMO).output, "ran\n")


def edits_are_laid_over_the_base(place: Place) -> None:
    """Changed, new and removed files are seen as such; an executable file stays so; folders go with their last file."""
    edited = DEMO.write("pkg/new.py", b"new").write("pkg/deep/data.txt", b"changed").remove("tests/test_one.py")
    edited = edited.write("run.sh", b"#!/bin/sh\necho edited\n").write("a/new/folder/file", b"").remove("link")
    laid_out(place, [edited])
    same("an edited program", sh(place.sandbox, "./run.sh", tree=edited).output, "edited\n")


def edits_end_with_their_run(place: Place) -> None:
    """A run never sees the edits of the one before it, neither on the same tree nor on another."""
    one, two = DEMO.write("pkg/new.py", b"1").write("run.sh", b"1"), DEMO.write("pkg/new.py", b"2").remove("link")
    laid_out(place, [one, two, DEMO, two, one, DEMO])


def files_and_folders_change_places(place: Place) -> None:
    """An edit can put a file where a folder or a link was, and a folder where a file or a link was."""
    base = tree_of({"d/f": "1", "d/e/g": "2", "a": "3", "link": File(b"d", Mode.SYMLINK), "other": "4"})
    swapped = base.remove("d/f").remove("d/e/g").write("d", b"a file").remove("a").write("a/b/c", b"in a folder")
    swapped = swapped.remove("link").write("link/x", b"in a folder")
    laid_out(place, [base, swapped, base, swapped.write("other", b"5"), swapped])


def trees_follow_each_other(place: Place) -> None:
    """One sandbox serves different trees in turn, more than a guest keeps, and each finds its own files alone."""
    trees = [tree_of({f"only_{number}.py": str(number), "same.py": str(number)}) for number in range(12)]
    laid_out(place, [*trees, *trees[:2], DEMO])


def run_can_add_files_everywhere(place: Place) -> None:
    """A run may write new files and folders beside the tree's own, in every folder of it."""
    script = "for d in . pkg pkg/deep tests; do echo x > $d/added && mkdir $d/made && cat $d/added; done"
    edited = DEMO.write("pkg/more/new.py", b"")
    result = sh(place.sandbox, f"{script}; echo y > pkg/more/added && cat pkg/more/added", tree=edited)
    same("code and output", (result.exit_code, result.output), (0, "x\n" * 4 + "y\n"))


def run_cannot_change_the_tree_it_is_graded_by(place: Place) -> None:
    """The tree's own files belong to another user: a run can neither write, nor remove, nor replace them."""
    result = place.sandbox.run(DEMO.write("tests/new.py", b"x"), Command(("python3", "-c", ATTEMPTS)))
    same("code and output", (result.exit_code, result.output), (0, "no\n" * 9))


ATTEMPTS = """
import os
def attempt(function, *args):
    try: function(*args); print("DONE", function, args)
    except OSError: print("no")
open("mine", "w").close()
for path in ("tests/test_one.py", "tests/new.py"):
    attempt(open, path, "w")
    attempt(os.remove, path)
    attempt(os.chmod, path, 0o777)
attempt(os.rename, "mine", "tests/test_one.py")
attempt(os.rename, "tests", "moved")
attempt(os.chmod, "tests", 0o777)
"""
CHECKS = (
    Check(tree_is_laid_out),
    Check(edits_are_laid_over_the_base),
    Check(edits_end_with_their_run),
    Check(files_and_folders_change_places),
    Check(trees_follow_each_other),
    Check(run_can_add_files_everywhere),
    Check(run_cannot_change_the_tree_it_is_graded_by, needs="separate_user"),
)
