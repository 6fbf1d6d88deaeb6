"""Large trees, laid out once on this machine for all runs: read-only, and mounted where they lie.

Only trees that an agent may see belong here: a container that mounts them has all of them, if where only root can look.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import shutil
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path

from sandboxes.base import SandboxError
from sandboxes.cache_directory import cache_directory
from sandboxes.tree_files import make_folder, write_file
from sandboxes.workspace import File, read_file

CACHED_BYTES = 512 * 2**20
"""So much of the files' contents is held in memory, over all trees."""


def kept_directory() -> Path:
    """Where they lie, as a whole path; it need not exist."""
    return (cache_directory() / "trees").absolute()


class _Contents:
    """The files that were read last."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._files: OrderedDict[str, File] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: str) -> File:
        with self._lock:
            found = self._files.get(path)
            if found is not None:
                self._files.move_to_end(path)
                return found
        file = read_file(path)
        with self._lock:
            if path not in self._files:
                self._bytes += len(file.content)
            self._files[path] = file
            while self._bytes > self._max_bytes:
                self._bytes -= len(self._files.popitem(last=False)[1].content)
        return file


_contents = _Contents(CACHED_BYTES)


class KeptTree:
    """A tree of the store. It is found, or laid out, when it is first asked for.

    Args:
        find: keeps the tree, and returns its name; equal names are equal trees, on every machine. What it raises comes
            out of the first use, and it is called again at the next.
    """

    def __init__(self, find: Callable[[], str]) -> None:
        self._find, self._lock = find, threading.Lock()
        self._name = ""

    @property
    def digest(self) -> str:
        """The name."""
        with self._lock:
            self._name = self._name or self._find()
        return self._name

    @cached_property
    def paths(self) -> tuple[str, ...]:
        with _known_faults():
            listed = (kept_directory() / self.digest / "paths").read_text(encoding="utf-8")
        return tuple(listed.split("\0")[:-1])

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.paths)

    @cached_property
    def _root(self) -> str:
        return str(kept_directory() / self.digest / "tree") + "/"

    def file(self, path: str) -> File:
        if path not in self._known:
            raise KeyError(path)
        with _known_faults():
            return _contents.get(self._root + path)


@contextlib.contextmanager
def _known_faults() -> Iterator[None]:
    """Somebody removed the tree, or the disk fails: that is no fault of what is done with it."""
    try:
        yield
    except OSError as error:
        raise SandboxError(f"a kept tree cannot be read: {error.filename}: {error.strerror}") from error


def keep(name: str, files: Callable[[], Iterable[tuple[str, File]]]) -> str:
    """Have a tree of that name in the store; `files` gives its content where it is not there yet. Returns the name.

    Raises:
        SandboxError: the disk has no room, or refuses.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,199}", name, re.ASCII):
        raise ValueError(f"not fit to be a tree's name: {name!r}")
    place = kept_directory() / name
    if not place.is_dir():
        try:
            with _alone(name):
                if not place.is_dir():
                    _lay_out(place, files())
        except OSError as error:
            raise _refused(error) from error
    return name


def make_kept_directory() -> Path:
    """Have it, so that it can be mounted. Raises SandboxError where the disk refuses."""
    try:
        _have(kept_directory())
    except OSError as error:
        raise _refused(error) from error
    return kept_directory()


def _have(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


def _refused(error: OSError) -> SandboxError:
    return SandboxError(f"cannot keep a tree in {kept_directory()}: {error.strerror}")


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    """One process, and one thread, lays out a tree; what a killed one left is removed."""
    folder = kept_directory()
    _have(folder)
    with (folder / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for torn in folder.glob(f".{name}.part-*"):
            shutil.rmtree(torn, ignore_errors=True)
        yield


def _lay_out(place: Path, files: Iterable[tuple[str, File]]) -> None:
    unfinished = place.with_name(f".{place.name}.part-{uuid.uuid4().hex}")
    root, paths = unfinished / "tree", []
    try:
        unfinished.mkdir()
        make_folder(root)
        for path, file in files:
            write_file(root, path, file)
            paths.append(path)
        (unfinished / "paths").write_text("".join(path + "\0" for path in sorted(paths)), encoding="utf-8")
        unfinished.rename(place)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
