"""What a sandbox is: a disposable place that takes a tree and a command, and gives back a result.

Faults of a sandbox itself are raised as `SandboxError` and never look like the outcome of a command.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

from sandboxes.workspace import Workspace


class SandboxError(Exception):
    """The infrastructure failed (engine down, container lost, no answer): says nothing about the code that was run."""


class SandboxUnavailable(SandboxError):
    """This kind of sandbox cannot be had on this machine; the message says what to do about it."""


class SandboxNotStarted(SandboxError):
    """A sandbox could not be started, retries included: trying once more at once is of no use."""


class Isolation(StrEnum):
    """What is shared between the runs of different rollouts."""

    CONTAINER = "container"
    """Nothing: each `open` gives a sandbox of its own, and its end is the end of all that ran in it."""
    RUN = "run"
    """The sandbox: it serves many rollouts of the same image, one run at a time, each walled off from the next."""


class Limit(StrEnum):
    """A limit that a run ran into."""

    WALL = "wall"
    CPU = "cpu"
    MEMORY = "memory"
    """A process of the run was killed because the sandbox's memory was used up."""
    PIDS = "pids"
    DISK = "disk"
    """The tree's or the temporary file system was full when the run ended."""
    OUTPUT = "output"
    """The middle of the output was dropped."""
    TEST = "test"
    """A test went over its own limit of CPU or wall-clock time, and has failed for that."""


class Wall(StrEnum):
    """What stands between one run and the next in the same sandbox, the strongest first."""

    NAMESPACES = "namespaces"
    """Mount, process and IPC namespaces of its own: what a run did to files and processes ends with it."""
    USER = "user"
    """Another user than the runner's; what the run left is removed, and the removal verified."""
    REMOVAL = "removal"
    """The runner's own user: what the run left is removed."""


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
    tree_by_mount: bool = False
    """Trees are too large to be copied for each sandbox: they are mounted where the backend can do that. Its runner
    then has the right to mount."""


@dataclass(frozen=True)
class PytestRun:
    """A run of pytest whose outcomes are reported test by test."""

    args: tuple[str, ...] = ()
    test_cpu_s: float = 10.0
    """CPU seconds of one test; a test over it has failed."""
    test_wall_s: float = 60.0
    max_failures: int = 0
    """Stop after so many failures, or at the first test that goes over its limit; 0 runs everything."""
    decisive: tuple[str, ...] = ()
    """Tests of which one that goes over its limit decides the run, which ends there."""
    only: tuple[str, ...] = ()
    """The ids of the tests that are run of all that are collected; empty: all."""
    scoring: bool = False
    """Add canaries (see sandboxes.canaries), and tell values that are equal to everything."""
    cold: bool = False
    """Start a new interpreter for this run, as `python -m pytest` does; it is chosen anyway where the tree or the
    environment asks for it."""


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
    """What a run did. `exit_code` is negative for a signal; it and `output` of a scoring run are with canaries."""

    exit_code: int
    output: str
    hit: frozenset[Limit] = frozenset()
    """The limits that it ran into."""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    records: tuple[TestRecord, ...] = ()
    """The tests, canaries left out."""
    tampered: str = ""
    """Why the reporter holds the run for manipulated; empty where it saw nothing."""
    canaries_missing: bool = False
    """A canary of a scoring run was not reported: the run ended early, or was bent."""
    cached: bool = False
    """Taken from the verdict cache: nothing was run."""

    @property
    def truncated(self) -> bool:
        return Limit.OUTPUT in self.hit

    @property
    def timed_out(self) -> bool:
        """The run was ended at its wall-clock or CPU limit."""
        return bool(self.hit & {Limit.WALL, Limit.CPU})


@dataclass(frozen=True)
class Promises:
    """What a backend guarantees, shown in every report."""

    boundary: bool
    """Code inside cannot reach the host's files, processes and network."""
    separate_user: bool
    """Code inside cannot change the tree's own files, nor signal the runner."""
    memory_limit: bool
    """One limit of memory for all processes of a sandbox (else each process has its own)."""
    pids_limit: bool
    wall: Wall


class Sandbox(Protocol):
    """One disposable place to run code; a context manager. Each run starts from the given tree and leaves nothing."""

    def run(self, tree: Workspace, command: Command) -> ExecResult: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class SandboxBackend(Protocol):
    """Where sandboxes come from; `image` empty is the base image, where the backend has images."""

    @property
    def name(self) -> str: ...
    @property
    def isolation(self) -> Isolation: ...
    @property
    def promises(self) -> Promises: ...
    @property
    def about(self) -> dict[str, str]:
        """What runs the tests: versions of Python and pytest, the image where there is one, how trees get in."""

    def identity(self, image: str = "") -> str:
        """What a verdict depends on besides tree, command and resources: the image's digest, the guest's version."""

    def prepare(self, resources: Resources, image: str, sandboxes: int) -> None:
        """So many sandboxes will be opened: a hint, by which they may be started ahead."""

    def open(self, resources: Resources, image: str = "") -> Sandbox:
        """A sandbox of one's own. Raises SandboxError."""

    def close(self) -> None:
        """Remove all that this backend started."""
