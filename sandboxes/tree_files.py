"""Writing a tree's files as a container can mount them."""

from __future__ import annotations

import os
from pathlib import Path

from sandboxes.workspace import File, Mode

FOLDER_MODE = 0o1777
"""A run may add files everywhere, and change or remove none that is not its own."""


def make_folder(path: Path) -> None:
    path.mkdir(exist_ok=True)
    path.chmod(FOLDER_MODE)


def write_file(root: Path, path: str, file: File) -> None:
    """Write one file of a tree, and the folders above it."""
    parts = path.split("/")
    for depth in range(1, len(parts)):
        folder = root.joinpath(*parts[:depth])
        if not folder.is_dir():
            make_folder(folder)
    full = root / path
    if file.mode is Mode.SYMLINK:
        os.symlink(file.content, os.fsencode(full))
        return
    full.write_bytes(file.content)
    full.chmod(0o755 if file.mode is Mode.EXECUTABLE else 0o644)
