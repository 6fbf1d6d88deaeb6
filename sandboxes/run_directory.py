"""The temporary directory of a run: the mark that tells whose it is, and removal that nothing in it can prevent."""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from dataclasses import dataclass
from pathlib import Path

MARK = "owner"


@dataclass(frozen=True)
class Mark:
    """What a run's directory says of itself; `expires` is Unix time."""

    run: str
    owner: str
    expires: int


def write_mark(directory: Path, mark: Mark) -> None:
    (directory / MARK).write_text(f"{mark.run}\n{mark.owner}\n{mark.expires}\n", encoding="utf-8")


def read_mark(directory: Path) -> Mark | None:
    """None where it is no directory of a run, or not this user's."""
    try:
        if not stat.S_ISDIR(directory.lstat().st_mode) or directory.lstat().st_uid != os.getuid():
            return None
        with open(os.open(directory / MARK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            run, owner, expires = file.read(4096).decode().splitlines()
            return Mark(run, owner, int(expires))
    except (OSError, ValueError):
        return None


def remove_tree(path: Path) -> None:
    """Remove a directory, whatever rights a run took away in it and however deep it nested directories.

    Raises:
        OSError: something in it cannot be removed; all else is.
    """
    try:
        top = _open_directory(None, str(path))
    except FileNotFoundError:
        return
    try:
        while names := os.listdir(top):
            faults = [fault for name in names if (fault := _remove(top, name))]
            if len(faults) == len(names):
                raise faults[0]
    finally:
        os.close(top)
    with contextlib.suppress(FileNotFoundError):  # somebody else removes it too
        path.rmdir()


def _remove(top: int, name: str) -> OSError | None:
    """Remove an entry of a directory; directories in it are lifted up beside it, so that no path grows long."""
    try:
        if not _is_directory(top, name):
            os.unlink(name, dir_fd=top)
            return None
        inside = _open_directory(top, name)
        try:
            for inner in os.listdir(inside):
                if _is_directory(inside, inner):
                    os.close(_open_directory(inside, inner))  # only one's own rights to it let it be moved
                    os.rename(inner, uuid.uuid4().hex, src_dir_fd=inside, dst_dir_fd=top)
                else:
                    os.unlink(inner, dir_fd=inside)
        finally:
            os.close(inside)
        os.rmdir(name, dir_fd=top)
    except FileNotFoundError:
        return None
    except OSError as fault:
        return fault
    return None


def _is_directory(parent: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def _open_directory(parent: int | None, name: str) -> int:
    """A descriptor of a directory, to which its user is given all rights."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        found = os.open(name, flags, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        found = os.open(name, flags, dir_fd=parent)
    os.fchmod(found, 0o700)
    return found
