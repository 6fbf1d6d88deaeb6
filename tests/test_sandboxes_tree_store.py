"""Trees as folders that a container can mount."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sandboxes.base import SandboxError
from sandboxes.tree_store import EMPTY, KEPT, TreeStore
from sandboxes.workspace import DirectoryTree, File, MappingTree, Mode

TREE = MappingTree(
    {
        "a/b/plain.txt": b"plain\n",
        "run.sh": File(b"#!/bin/sh\n", Mode.EXECUTABLE),
        "link": File(b"a/b/plain.txt", Mode.SYMLINK),
    }
)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_tree_is_laid_out_as_it_is(tmp_path: Path) -> None:
    store = TreeStore(tmp_path / "bases")
    folder = store.place / store.put(TREE)
    assert DirectoryTree(folder).digest == TREE.digest == folder.name
    assert os.readlink(folder / "link") == "a/b/plain.txt"
    assert (mode_of(folder / "run.sh"), mode_of(folder / "a/b/plain.txt")) == (0o755, 0o644)


def test_runs_may_add_files_and_others_may_not_even_look(tmp_path: Path) -> None:
    store = TreeStore(tmp_path / "bases")
    folder = store.place / store.put(TREE)
    assert mode_of(store.place) == 0o700
    assert {mode_of(each) for each in (folder, folder / "a", folder / "a/b", store.place / EMPTY)} == {0o1777}


def test_a_tree_is_written_once(tmp_path: Path) -> None:
    store = TreeStore(tmp_path / "bases")
    folder = store.place / store.put(TREE)
    before = (folder / "run.sh").stat().st_mtime_ns
    store.put(MappingTree({path: TREE.file(path) for path in TREE.paths}))
    assert (folder / "run.sh").stat().st_mtime_ns == before
    assert {each.name for each in store.place.iterdir()} == {"marker", EMPTY, KEPT, TREE.digest}


def test_failed_write_is_a_fault_of_the_sandbox_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TreeStore(tmp_path / "bases")

    def full(self: Path, mode: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(SandboxError, match="No space left"):
            store.put(TREE)
    assert sorted(each.name for each in store.place.iterdir()) == [EMPTY, KEPT, "marker"]
    assert DirectoryTree(store.place / store.put(TREE)).digest == TREE.digest
