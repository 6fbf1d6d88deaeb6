"""Laying files out, and removing whatever a run left."""

import os
from typing import FrozenSet, Set, Union

TREE_FOLDER = 0o1777
"""A run may add files everywhere, and change or remove none that is not its own."""
BYTES_PER_FILE = 4096
"""A file system of so many bytes holds one file: names take memory too, and time to remove."""
Names = Union[FrozenSet[str], Set[str]]


def make_folder(path: str) -> None:
    if not os.path.isdir(path):
        os.mkdir(path)
        os.chmod(path, TREE_FOLDER)


def write_entry(full: str, mode: str, content: bytes) -> None:
    if mode == "120000":
        os.symlink(content, os.fsencode(full))
        return
    with open(full, "xb") as file:
        file.write(content)
    os.chmod(full, 0o755 if mode == "100755" else 0o644)


def empty(place: str, keep: Names = frozenset()) -> None:
    """Remove all that is in a folder but the names to keep, whatever permissions a run took away and however deep it
    nested folders. Raises OSError for what the calling user may not remove.
    """
    lifted = 0
    while True:
        names = [name for name in os.listdir(place) if name not in keep]
        if not names:
            return
        for name in names:
            path = os.path.join(place, name)
            if not is_folder(path):
                os.unlink(path)
                continue
            open_up(path)
            for inner in os.listdir(path):
                if is_folder(os.path.join(path, inner)):  # lifted up, so that no path grows long
                    open_up(os.path.join(path, inner))
                    lifted = free_number(place, lifted)
                    os.rename(os.path.join(path, inner), os.path.join(place, str(lifted)))
                else:
                    os.unlink(os.path.join(path, inner))
            os.rmdir(path)


def open_up(path: str) -> None:
    try:
        os.chmod(path, 0o700)
    except PermissionError:  # another user's: what may be done with it shows when it is tried
        pass


def forget_attributes(path: str) -> None:
    """Remove extended attributes. What is laid out in a folder would inherit an access list among them."""
    for name in os.listxattr(path) if hasattr(os, "listxattr") else []:
        try:
            os.removexattr(path, name)
        except OSError:  # the system's own
            pass


def is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def free_number(place: str, number: int) -> int:
    while os.path.lexists(os.path.join(place, str(number))):
        number += 1
    return number


def is_full(place: str) -> bool:
    room = os.statvfs(place)
    return (room.f_blocks > 0 and room.f_bavail == 0) or (room.f_files > 0 and room.f_favail == 0)
