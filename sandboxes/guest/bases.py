"""Where the guest finds the trees that runs start from, by their digest: in folders that only root can read, or in
memory where the run has the runner's own user.
"""

import base64
import os
from typing import Any, Dict, Iterator, Optional, Tuple

from sandboxes.guest.files import empty, make_folder, write_entry

NOBODY = 65534
MAX_SHIPPED = 8
"""So many shipped trees are kept."""
EMPTY_BASE = "empty"
Entry = Tuple[str, str]  # mode, content in base 64


class FolderBases:
    """One folder a tree: mounted by the driver, or written here from what it shipped."""

    def __init__(self, place: str, mounted: bool) -> None:
        self.place, self.mounted = place, mounted
        self.owner = os.stat(place).st_uid
        if not mounted:
            os.chmod(place, 0o700)
            self.add(EMPTY_BASE, {})

    def has(self, base: str) -> bool:
        return os.path.isdir(self.folder(base))

    def folder(self, base: str) -> str:
        return os.path.join(self.place, base)

    def add(self, base: str, files: Dict[str, Entry]) -> None:
        """Write a shipped tree; the oldest one makes room."""
        held = sorted(set(os.listdir(self.place)) - {EMPTY_BASE}, key=lambda name: os.stat(self.folder(name)).st_ctime)
        for oldest in held[: max(0, len(held) - MAX_SHIPPED + 1)]:
            empty(self.folder(oldest))
            os.rmdir(self.folder(oldest))
        folder = self.folder(base)
        make_folder(folder)
        for path in sorted(files):
            mode, content = files[path]
            full = os.path.join(folder, path)
            make_parents(folder, path)
            write_entry(full, mode, base64.b64decode(content))

    def entries(self, base: str) -> Iterator[Tuple[str, str, bytes]]:
        """Path, mode and content of each file."""
        top = self.folder(base)
        for folder, folders, names in os.walk(top):
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            for name in names + links:
                full = os.path.join(folder, name)
                yield (os.path.relpath(full, top),) + read_entry(full)

    def entry(self, base: str, path: str) -> Optional[Tuple[str, bytes]]:
        full = os.path.join(self.folder(base), path)
        inside = os.path.lexists(full) and (os.path.islink(full) or not os.path.isdir(full))
        return read_entry(full) if inside else None


class MemoryBases:
    """The same, out of reach of a run that has the runner's own user."""

    owner, mounted = -1, False

    def __init__(self) -> None:
        self.trees = {}  # type: Dict[str, Dict[str, Entry]]

    def has(self, base: str) -> bool:
        return base in self.trees

    def add(self, base: str, files: Dict[str, Entry]) -> None:
        while len(self.trees) >= MAX_SHIPPED:
            del self.trees[next(iter(self.trees))]
        self.trees[base] = files

    def entries(self, base: str) -> Iterator[Tuple[str, str, bytes]]:
        for path, (mode, content) in self.trees[base].items():
            yield path, mode, base64.b64decode(content)

    def entry(self, base: str, path: str) -> Optional[Tuple[str, bytes]]:
        found = self.trees[base].get(path)
        return (found[0], base64.b64decode(found[1])) if found else None


def read_entry(full: str) -> Tuple[str, bytes]:
    if os.path.islink(full):
        return "120000", os.fsencode(os.readlink(full))
    with open(full, "rb") as file:
        return "100755" if os.fstat(file.fileno()).st_mode & 0o100 else "100644", file.read()


def make_parents(root: str, path: str) -> None:
    """The folders above a file of the tree: a run may add files to them."""
    parts = path.split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        make_folder(os.path.join(root, *parts[:depth]))


def open_bases(options: Dict[str, Any]) -> Any:
    """What the driver's options ask for; a mount that does not show the driver's own marker is not used."""
    if not options["bases"]:
        return MemoryBases()
    try:
        with open(os.path.join(options["bases"], "marker")) as file:
            ours = bool(options["marker"]) and file.read() == options["marker"]
        mounted = ours and os.stat(options["bases"]).st_uid != NOBODY  # or runs could read all of it
    except OSError:
        mounted = False
    return FolderBases(options["bases"] if mounted else options["shipped"], mounted)
