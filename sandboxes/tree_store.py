"""The trees that runs start from, as folders that a container can mount: each is written once, by its digest."""

from __future__ import annotations

import shutil
import threading
import uuid
from pathlib import Path

from sandboxes.base import SandboxError
from sandboxes.kept_trees import KeptTree, make_kept_directory
from sandboxes.tree_files import make_folder, write_file
from sandboxes.workspace import Tree

EMPTY, KEPT = "empty", "kept"


class TreeStore:
    """Folders `<place>/<digest>`, under one that only its owner (and root, in a container) can read.

    `marker` is a secret that tells a guest that what is mounted is this store. Kept trees are not copied: their own
    directory is to be mounted at `<place>/kept`.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.marker = uuid.uuid4().hex
        self._placed: set[str] = set()
        self._lock = threading.Lock()
        place.mkdir(mode=0o700)
        (place / "marker").write_text(self.marker)
        make_folder(place / EMPTY)
        (place / KEPT).mkdir()
        self.kept = make_kept_directory()

    def put(self, tree: Tree) -> str:
        """Write a tree if it is not there yet; its path in the store. Raises SandboxError where the disk is full."""
        if isinstance(tree, KeptTree):
            return f"{KEPT}/{tree.digest}/tree"
        with self._lock:
            if tree.digest not in self._placed:
                try:
                    self._write(tree)
                except OSError as error:
                    raise SandboxError(f"cannot lay out a tree in {self.place}: {error.strerror}") from error
                self._placed.add(tree.digest)
        return tree.digest

    def _write(self, tree: Tree) -> None:
        unfinished = self.place / f"{tree.digest}.part"
        try:
            make_folder(unfinished)
            for path in tree.paths:
                write_file(unfinished, path, tree.file(path))
            unfinished.rename(self.place / tree.digest)
        except OSError:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
