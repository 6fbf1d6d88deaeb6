"""What a sandbox is: a disposable place that takes a tree and a command, and gives back a result.

Faults of a sandbox itself are raised as `SandboxError` and never look like the outcome of a command.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from sandboxes.workspace import Workspace


class SandboxError(Exception):
    """The infrastructure failed (engine down, container lost, no answer): says nothing about the code that was run."""


class SandboxUnavailable(SandboxError):
    """This kind of sandbox cannot be had on this machine; the message says what to do about it."""


@dataclass(frozen=True)
class Limits:
    """What one run may use. CPU time counts first, so that a busy machine does not change a verdict."""

    cpu_s: float = 60.0
    """CPU seconds of one process of the run."""
    wall_s: float = 180.0
    """Wall-clock seconds of the whole run."""
    file_bytes: int = 64 * 2**20
    """Size of one file that the run writes."""
    output_bytes: int = 64 * 1024
    """Bytes of output that are kept; the middle of a longer output is dropped."""


@dataclass(frozen=True)
class Resources:
    """What a sandbox as a whole may use."""

    memory_bytes: int = 1024 * 2**20
    pids: int = 128
    cpus: float = 1.0
    disk_bytes: int = 256 * 2**20
    """Size of the tree's and of the temporary file system, each."""


@dataclass(frozen=True)
class Canary:
    """A driver-owned test, added to a scoring run under an unpredictable name."""

    name: str
    passes: bool


@dataclass(frozen=True)
class PytestRun:
    """A run of pytest whose outcomes are reported test by test."""

    args: tuple[str, ...] = ()
    test_cpu_s: float = 10.0
    """CPU seconds of one test; a test over it has failed."""
    test_wall_s: float = 60.0
    max_failures: int = 0
    """Stop after so many failures; 0 runs everything."""
    canaries: tuple[Canary, ...] = ()
    strict_equality: bool = False
    """Tell values that are equal to everything, where a test compares with `==` (for scoring runs)."""


@dataclass(frozen=True)
class Command:
    """What to run in the tree's root: a program, or pytest under the driver's reporter."""

    run: tuple[str, ...] | PytestRun
    pythonpath: tuple[str, ...] = (".",)
    """Directories of the tree on the import path."""
    env: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()


@dataclass(frozen=True)
class TestRecord:
    """What the reporter saw of one test: outcome is passed, failed, error, skipped, xfailed or xpassed."""

    __test__ = False  # not a test class, whatever pytest thinks of its name
    id: str
    outcome: str
    message: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class ExecResult:
    """What a run did. `exit_code` is negative for a signal."""

    exit_code: int
    output: str
    truncated: bool = False
    timed_out: bool = False
    """The run was ended at its wall-clock or CPU limit."""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    records: tuple[TestRecord, ...] = ()
    tampered: str = ""
    """Why the reporter holds the run for manipulated; empty where it saw nothing."""


@dataclass(frozen=True)
class Promises:
    """What a backend guarantees, shown in every report."""

    boundary: bool
    """Code inside cannot reach the host's files, processes and network."""
    separate_user: bool
    """Code inside cannot change the tree's own files, nor signal the runner."""
    memory_limit: bool
    pids_limit: bool


class Sandbox(Protocol):
    """One disposable place to run code; a context manager. Each run starts from the given tree and leaves nothing."""

    def run(self, tree: Workspace, command: Command) -> ExecResult: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class SandboxBackend(Protocol):
    """Where sandboxes come from. `open` raises SandboxError (`image` empty: the base image, where the backend has
    images); `close` removes all that this backend started."""

    @property
    def name(self) -> str: ...
    @property
    def promises(self) -> Promises: ...
    @property
    def about(self) -> dict[str, str]:
        """What runs the tests: versions of Python and pytest, and the image where there is one."""

    def open(self, resources: Resources, image: str = "") -> Sandbox: ...
    def close(self) -> None: ...
