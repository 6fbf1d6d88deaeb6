"""A verdict cache: the same tree under the same command at the same place is tested once, on this machine, ever.

`CachedBackend` wraps a backend. A run of pytest whose verdict is known is answered from disk, and no sandbox is started
for it; its result says `cached`. Kept is only what the tree alone decided: never a fault of the infrastructure, nor a
run that met a limit, died by a signal, or was tampered with.

The files are trusted like the checkout itself: code that can write there (with a backend that is no boundary) can forge
verdicts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict

from sandboxes.base import (
    Command,
    ExecResult,
    Isolation,
    Limit,
    Promises,
    PytestRun,
    Resources,
    Sandbox,
    SandboxBackend,
    SandboxError,
)
from sandboxes.cache_directory import cache_directory
from sandboxes.workspace import Workspace

FOLDER_FILES, FOLDER_BYTES = 400, 2**20
"""Bounds of each of the 256 folders, among which hashing spreads the verdicts evenly: 100,000 files, 256 MiB in all."""


def verdict_directory() -> Path:
    """Where verdicts are kept when nothing else is said."""
    return cache_directory() / "verdicts"


class _Verdict(BaseModel):
    """A file of the cache; a new format makes new keys, and what is old is pruned in time."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: Literal[1] = 1
    key: str
    result: ExecResult

    def encoded(self) -> bytes:
        return self.model_dump_json().encode()


class VerdictStore:
    """Verdicts on disk, one small file each, shared by any number of processes. No fault of the disk is ever raised."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self, key: str) -> ExecResult | None:
        """The verdict of that key; None too where its file is not exactly what `keep` writes."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                data = file.read(FOLDER_BYTES + 1)
            verdict = _Verdict.model_validate_json(data)
        except (OSError, ValueError):
            return None
        if verdict.key != key or verdict.encoded() != data or not may_be_kept(verdict.result):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # what was used last is pruned last
        return verdict.result

    def keep(self, key: str, result: ExecResult) -> bool:
        """Store a verdict. False where that was not possible: a full or read-only disk, a result that is too large."""
        path = self._path(key)
        try:
            data = _Verdict(key=key, result=result).encoded()
            if len(data) > FOLDER_BYTES:
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, data)
        except (OSError, ValueError):
            return False
        _prune(path.parent)
        return True

    def _path(self, key: str) -> Path:
        return self._directory / key[:2] / f"{key}.json"


def may_be_kept(result: ExecResult) -> bool:
    """The tree alone decided it: tests were reported, no limit was met but that of the output, and nothing was bent."""
    ended = result.exit_code >= 0 and result.hit <= {Limit.OUTPUT}
    return ended and bool(result.records) and not result.tampered and not result.canaries_missing


def _replace(path: Path, data: bytes) -> None:
    """Write a file so that others see it whole or not at all."""
    descriptor, scratch = tempfile.mkstemp(dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(scratch)
        raise


def _prune(folder: Path) -> None:
    """Remove what was not used for longest, until the folder is within its bounds."""
    found: list[tuple[int, int, str]] = []
    total = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # another process prunes it too
        for entry in entries:
            about = entry.stat()
            found.append((about.st_mtime_ns, about.st_size, entry.path))
    for number, (_, size, path) in enumerate(sorted(found, reverse=True), 1):
        total += size
        if number > FOLDER_FILES or total > FOLDER_BYTES:
            with contextlib.suppress(OSError):
                os.unlink(path)


def verdict_key(backend: SandboxBackend, image: str, resources: Resources, tree: Workspace, command: Command) -> str:
    """SHA-256, in hexadecimal, over all that decides a verdict."""
    parts = {
        "format": _Verdict.model_fields["format"].default,
        "backend": backend.name,
        "isolation": backend.isolation,
        "promises": backend.promises,
        "identity": backend.identity(image),
        "resources": resources,
        "tree": tree.digest,
        "command": command,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=_plain).encode()).hexdigest()


def _plain(value: object) -> object:
    if is_dataclass(value):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no part of a key: {value!r}")


@dataclass(frozen=True)
class CacheCounts:
    """What a cache has done so far. A run of anything but pytest is not counted."""

    hits: int = 0
    misses: int = 0
    kept: int = 0
    lost: int = 0
    """Verdicts that could not be stored."""


class CachedBackend:
    """A backend that answers runs of pytest from a verdict cache where it can. Closing it closes the other."""

    def __init__(self, backend: SandboxBackend, directory: Path) -> None:
        self._backend, self._store = backend, VerdictStore(directory)
        self._lock = threading.Lock()
        self._counts = CacheCounts()
        self._under_way: dict[str, threading.Event] = {}
        self._hints: list[tuple[Resources, str, int]] = []

    @property
    def name(self) -> str:
        return self._backend.name

    @property
    def isolation(self) -> Isolation:
        return self._backend.isolation

    @property
    def promises(self) -> Promises:
        return self._backend.promises

    @property
    def about(self) -> dict[str, str]:
        return self._backend.about

    @property
    def counts(self) -> CacheCounts:
        return self._counts

    def identity(self, image: str = "") -> str:
        return self._backend.identity(image)

    def prepare(self, resources: Resources, image: str, sandboxes: int) -> None:
        """The hint is passed on when the first verdict turns out not to be known."""
        with self._lock:
            self._hints.append((resources, image, sandboxes))

    def open(self, resources: Resources, image: str = "") -> CachedSandbox:
        """A sandbox that is started at its first run whose verdict is not known; that run may raise SandboxError."""
        return CachedSandbox(
            self,
            lambda: self._open(resources, image),
            lambda tree, command: verdict_key(self._backend, image, resources, tree, command),
        )

    def _open(self, resources: Resources, image: str) -> Sandbox:
        with self._lock:
            hints, self._hints = self._hints, []
        for hint in hints:
            self._backend.prepare(*hint)
        return self._backend.open(resources, image)

    def close(self) -> None:
        self._backend.close()

    def load(self, key: str) -> ExecResult | None:
        """A known verdict, marked as cached, and counted."""
        found = self._store.load(key)
        if found is None:
            return None
        self.count(hits=1)
        return replace(found, cached=True)

    def keep(self, key: str, result: ExecResult) -> None:
        stored = self._store.keep(key, result)
        self.count(kept=int(stored), lost=int(not stored))

    @contextlib.contextmanager
    def turn(self, key: str) -> Iterator[None]:
        """Of several threads with the same key the first goes on at once, the others together when it has ended."""
        mine = threading.Event()
        with self._lock:
            first = self._under_way.setdefault(key, mine)
        if first is not mine:
            first.wait()
            yield
            return
        try:
            yield
        finally:
            with self._lock:
                del self._under_way[key]
            mine.set()

    def count(self, **more: int) -> None:
        with self._lock:
            self._counts = replace(self._counts, **{name: getattr(self._counts, name) + n for name, n in more.items()})


class CachedSandbox:
    """A sandbox of a `CachedBackend`."""

    def __init__(
        self, cache: CachedBackend, open_sandbox: Callable[[], Sandbox], key: Callable[[Workspace, Command], str]
    ) -> None:
        self._cache, self._open_sandbox, self._key = cache, open_sandbox, key
        self._lock = threading.Lock()
        self._sandbox: Sandbox | None = None
        self._closed = self._used = False

    def run(self, tree: Workspace, command: Command) -> ExecResult:
        """The known verdict, else that of a run.

        Two threads never run the same at the same time, unless the first of them had no verdict to keep. The sandbox is
        there before its turn is waited for, so that no run waits for a sandbox to be started or to become free.
        """
        if not isinstance(command.run, PytestRun):
            return self._run(tree, command)
        key = self._key(tree, command)
        found = self._cache.load(key)
        if found is None:
            self._opened()
            with self._cache.turn(key):
                found = self._cache.load(key) or self._run_and_keep(key, tree, command, command.run.scoring)
        return found

    def _run_and_keep(self, key: str, tree: Workspace, command: Command, scoring: bool) -> ExecResult:
        """Run. In a sandbox that ran something before, for which only this rollout answers, no score is kept."""
        clean = not self._used or self._cache.isolation is Isolation.RUN
        self._cache.count(misses=1)
        result = self._run(tree, command)
        if may_be_kept(result) and (clean or not scoring):
            self._cache.keep(key, result)
        return result

    def _run(self, tree: Workspace, command: Command) -> ExecResult:
        sandbox = self._opened()
        self._used = True
        return sandbox.run(tree, command)

    def _opened(self) -> Sandbox:
        if self._closed:
            raise SandboxError("the sandbox is closed")
        if self._sandbox is None:
            opened = self._open_sandbox()
            with self._lock:
                self._sandbox = opened
            if self._closed:  # by another thread, meanwhile: a run in it says so
                opened.close()
        return self._sandbox

    def close(self) -> None:
        """End the run under way, and the sandbox."""
        with self._lock:
            self._closed, opened = True, self._sandbox
        if opened is not None:
            opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
