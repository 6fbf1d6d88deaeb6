"""The state of an episode as a value: an immutable file tree under edits.

A `Tree` is read-only and never changes. A `Workspace` is a tree plus an overlay of edits; `write` returns a new one, so
a fork is a reference, an undo is the older reference, and `digest` identifies the state on any machine.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import stat
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

MAX_LINKS = 40
"""Symbolic links that one path may lead through, as in Linux."""


class PathError(ValueError):
    """A path that cannot name a file of this tree; the message is fit to be shown to a model."""


class Mode(StrEnum):
    """File kinds, by git's mode numbers."""

    REGULAR = "100644"
    EXECUTABLE = "100755"
    SYMLINK = "120000"


@dataclass(frozen=True)
class File:
    """One file: its bytes (for a symbolic link, the target) and its kind."""

    content: bytes
    mode: Mode = Mode.REGULAR

    @cached_property
    def digest(self) -> str:
        """SHA-256 of mode and content, in hexadecimal."""
        return hashlib.sha256(self.mode.encode() + b"\0" + self.content).hexdigest()


class Tree(Protocol):
    """A read-only file tree. Paths are relative, with forward slashes, sorted."""

    @property
    def paths(self) -> tuple[str, ...]: ...
    @property
    def digest(self) -> str: ...
    def file(self, path: str) -> File: ...


def clean_path(path: str) -> str:
    """Return the canonical form of a relative path ('.' for the root).

    Raises:
        PathError: absolute, with '..', with a backslash or NUL, or not encodable as UTF-8.
    """
    if "\0" in path or "\\" in path:
        raise PathError(f"not a valid path: {path!r} (use forward slashes)")
    if not path.isprintable():
        raise PathError(f"not a valid path: {path!r}")
    if path.startswith(("/", "~")) or (len(path) > 1 and path[1] == ":"):
        raise PathError(f"absolute paths are not allowed: {path!r} (paths are relative to the repository root)")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise PathError(f"'..' is not allowed in a path: {path!r}")
    if any(len(part.encode()) > 255 for part in parts) or len(path) > 1024:
        raise PathError("the path is too long")
    return "/".join(parts) or "."


class MappingTree:
    """A tree held in memory."""

    def __init__(self, files: Mapping[str, File | bytes]) -> None:
        self._files = {
            path: file if isinstance(file, File) else File(file)
            for path, file in sorted(files.items())
            if _checked(path)
        }
        self.paths = tuple(self._files)

    @cached_property
    def digest(self) -> str:
        return _tree_digest(self)

    def file(self, path: str) -> File:
        return self._files[path]


class DirectoryTree:
    """A tree over a directory of the host, which must not change while the tree is in use.

    Each file is read once and kept, so that a second grep costs no I/O; symbolic links are taken as links, never
    followed. Directories named in `skip` are left out at any depth.
    """

    def __init__(self, root: Path, skip: frozenset[str] = frozenset({".git", "__pycache__"})) -> None:
        self._root = root
        self._read: dict[str, File] = {}
        self.paths = tuple(sorted(path for path in _walk(root, skip) if _checked(path)))
        self._known = frozenset(self.paths)

    @cached_property
    def digest(self) -> str:
        return _tree_digest(self)

    def file(self, path: str) -> File:
        if path not in self._read:
            if path not in self._known:
                raise KeyError(path)
            self._read[path] = read_file(self._root / path)
        return self._read[path]


def _checked(path: str) -> bool:
    if clean_path(path) != path or path == ".":
        raise PathError(f"not a canonical path: {path!r}")
    return True


def _walk(root: Path, skip: frozenset[str]) -> Iterator[str]:
    for directory, folders, files in os.walk(root):
        links = [name for name in folders if os.path.islink(os.path.join(directory, name))]
        folders[:] = sorted(name for name in folders if name not in skip and name not in links)
        for name in files + links:
            full = os.path.join(directory, name)
            if os.path.islink(full) or os.path.isfile(full):
                yield os.path.relpath(full, root).replace(os.sep, "/")


def read_file(path: str | Path) -> File:
    """A file of the host, or a symbolic link itself."""
    if os.path.islink(path):
        return File(os.readlink(os.fsencode(path)), Mode.SYMLINK)
    with open(path, "rb") as file:
        executable = os.fstat(file.fileno()).st_mode & stat.S_IXUSR
        return File(file.read(), Mode.EXECUTABLE if executable else Mode.REGULAR)


def _tree_digest(tree: Tree) -> str:
    state = hashlib.sha256()
    for path in tree.paths:
        state.update(f"{path}\0{tree.file(path).digest}\n".encode())
    return state.hexdigest()


@dataclass(frozen=True)
class Workspace:
    """An immutable tree under edits. `edits` maps a path to its new file, or to None where it was removed."""

    base: Tree
    edits: Mapping[str, File | None] = field(default_factory=lambda: MappingProxyType({}))

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """All file paths, sorted. Shared with the base where no file was added or removed."""
        added = [path for path, file in self.edits.items() if file is not None and not self._in_base(path)]
        removed = {path for path, file in self.edits.items() if file is None}
        if not added and not removed:
            return self.base.paths
        return tuple(sorted([path for path in self.base.paths if path not in removed] + added))

    @cached_property
    def digest(self) -> str:
        """Identity of the state: equal for equal trees on the same base, however they were reached."""
        if not self.edits:
            return self.base.digest
        state = hashlib.sha256(self.base.digest.encode())
        for path in sorted(self.edits):
            file = self.edits[path]
            state.update(f"\n{path}\0{file.digest if file else '-'}".encode())
        return state.hexdigest()

    def __contains__(self, path: str) -> bool:
        return self.edits[path] is not None if path in self.edits else self._in_base(path)

    def _in_base(self, path: str) -> bool:
        position = bisect_left(self.base.paths, path)
        return position < len(self.base.paths) and self.base.paths[position] == path

    def is_directory(self, path: str) -> bool:
        return path == "." or next(self.below(path), None) is not None

    def below(self, directory: str) -> Iterator[str]:
        """The paths under a directory, sorted."""
        if directory == ".":
            yield from self.paths
            return
        prefix = directory + "/"
        for position in range(bisect_left(self.paths, prefix), len(self.paths)):
            if not self.paths[position].startswith(prefix):
                return
            yield self.paths[position]

    def file(self, path: str) -> File:
        """The file at a canonical path; KeyError where there is none."""
        if path in self.edits:
            edited = self.edits[path]
            if edited is None:
                raise KeyError(path)
            return edited
        return self.base.file(path)

    def read(self, path: str) -> bytes:
        """The bytes at a path, symbolic links followed inside the tree only; KeyError or PathError otherwise."""
        return self.file(self.resolve(path)).content

    def resolve(self, path: str) -> str:
        """The canonical path that `path` leads to through the tree's symbolic links.

        Raises:
            PathError: a link leaves the tree, or the links form a loop.
        """
        done: list[str] = []
        todo, links = path.split("/"), 0
        while todo:
            part = todo.pop(0)
            here = "/".join([*done, part])
            if part == "..":
                if not done:
                    raise PathError(f"a symbolic link leaves the repository: {path!r}")
                done.pop()
            elif here in self and self.file(here).mode is Mode.SYMLINK:
                links += 1
                todo = self._target(here) + todo
                if links > MAX_LINKS:
                    raise PathError(f"too many symbolic links: {path!r}")
            elif part not in ("", "."):
                done.append(part)
        return "/".join(done) or "."

    def _target(self, link: str) -> list[str]:
        target = self.file(link).content.decode(errors="replace")
        if target.startswith("/"):
            raise PathError(f"a symbolic link leaves the repository: {link!r}")
        return target.split("/")

    def write(self, path: str, content: bytes) -> Workspace:
        """A workspace in which `path` holds `content`; the mode of an existing file is kept.

        Raises:
            PathError: the path is not canonical, is or lies under a link, is a directory, or lies under a file.
        """
        _checked(path)
        if self.is_directory(path):
            raise PathError(f"is a directory: {path!r}")
        parts = path.split("/")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in self:
                raise PathError(f"not a directory: {'/'.join(parts[:depth])!r}")
        mode = self.file(path).mode if path in self else Mode.REGULAR
        if mode is Mode.SYMLINK:
            raise PathError(f"is a symbolic link: {path!r}")
        return self._with(path, File(content, mode))

    def remove(self, path: str) -> Workspace:
        """A workspace without that file; KeyError where there is none."""
        self.file(path)
        return self._with(path, None)

    def _with(self, path: str, file: File | None) -> Workspace:
        edits = {key: value for key, value in self.edits.items() if key != path}
        base = self.base.file(path) if self._in_base(path) else None
        if file != base:
            edits[path] = file
        return Workspace(self.base, MappingProxyType(edits))

    def diff(self) -> str:
        """The edits as a unified diff against the base (binary files are named only)."""
        return "".join(_file_diff(path, self._old(path), self.edits[path]) for path in sorted(self.edits))

    def _old(self, path: str) -> File | None:
        return self.base.file(path) if self._in_base(path) else None


def _file_diff(path: str, old: File | None, new: File | None) -> str:
    """One file's part of a patch, in git's form: that one knows modes, and files that come or go empty."""
    head = f"diff --git a/{path} b/{path}\n"
    head += f"new file mode {new.mode}\n" if new and not old else ""
    head += f"deleted file mode {old.mode}\n" if old and not new else ""
    before, after = (_lines(file.content) if file else [] for file in (old, new))
    if before is None or after is None:
        return head + f"Binary files a/{path} and b/{path} differ\n"
    tab = "\t" if " " in path else ""
    names = (f"a/{path}{tab}" if old else "/dev/null", f"b/{path}{tab}" if new else "/dev/null")
    lines = difflib.unified_diff(before, after, *names)
    return head + "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)


def _lines(content: bytes) -> list[str] | None:
    """Lines that end at newlines only, as in a patch; None for content that is not text."""
    try:
        lines = [line + "\n" for line in content.decode().split("\n")]
    except UnicodeDecodeError:
        return None
    lines[-1] = lines[-1][:-1]
    return None if b"\0" in content else lines if lines[-1] else lines[:-1]
