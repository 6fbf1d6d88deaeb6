"""The trees that runs start from, as folders that a container can mount: each is written once, by its digest."""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from pathlib import Path

from sandboxes.base import SandboxError
from sandboxes.workspace import File, Mode, Tree

FOLDER_MODE = 0o1777
"""A run may add files everywhere, and change or remove none that is not its own."""
EMPTY = "empty"


class TreeStore:
    """Folders `<place>/<digest>`, under one that only its owner (and root, in a container) can read.

    `marker` is a secret that tells a guest that what is mounted is this store.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.marker = uuid.uuid4().hex
        self._placed: set[str] = set()
        self._lock = threading.Lock()
        place.mkdir(mode=0o700)
        (place / "marker").write_text(self.marker)
        _folder(place / EMPTY)

    def put(self, tree: Tree) -> str:
        """Write a tree if it is not there yet; its digest. Raises SandboxError where the disk has no room."""
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
            _folder(unfinished)
            for path in tree.paths:
                _write(unfinished, path, tree.file(path))
            unfinished.rename(self.place / tree.digest)
        except OSError:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise


def _folder(path: Path) -> None:
    path.mkdir(exist_ok=True)
    path.chmod(FOLDER_MODE)


def _write(root: Path, path: str, file: File) -> None:
    parts = path.split("/")
    for depth in range(1, len(parts)):
        folder = root.joinpath(*parts[:depth])
        if not folder.is_dir():
            _folder(folder)
    full = root / path
    if file.mode is Mode.SYMLINK:
        os.symlink(file.content, os.fsencode(full))
        return
    full.write_bytes(file.content)
    full.chmod(0o755 if file.mode is Mode.EXECUTABLE else 0o644)
