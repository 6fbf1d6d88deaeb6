"""Writing a tree's files as a container can mount them."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from sandboxes.workspace import File, Mode

FOLDER_MODE = 0o1777
"""A run may add files everywhere, and change or remove none that is not its own."""


def make_folder(path: Path) -> None:
    path.mkdir(exist_ok=True)
    path.chmod(FOLDER_MODE)


def write_file(root: Path, path: str, file: File) -> None:
    """Write one file of a tree, and the folders above it; never through a link, for that may lead out of the root.

    Raises OSError, also for a path that is there, or lies under one that is no folder: a broken git tree may have both.
    """
    parts = path.split("/")
    for depth in range(1, len(parts)):
        folder = root.joinpath(*parts[:depth])
        if folder.is_symlink():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
        if not folder.is_dir():
            make_folder(folder)
    full = root / path
    if file.mode is Mode.SYMLINK:
        if b"\0" in file.content:  # to Python a ValueError
            raise OSError(errno.EINVAL, "a symbolic link leads nowhere", str(full))
        os.symlink(file.content, os.fsencode(full))
        return
    with full.open("xb") as written:
        written.write(file.content)
    full.chmod(0o755 if file.mode is Mode.EXECUTABLE else 0o644)
