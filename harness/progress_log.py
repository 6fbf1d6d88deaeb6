"""`progress.jsonl` in a run directory: what a terminal shows of a run, kept for those who look from elsewhere.

    began   a process took the run up: who it is
    phase   it plays so many rollouts (forks, rollouts of a round, training steps) from now on
    unit    one of them is over; counts and costs are those of the phase
    beat    every few seconds: the same figures, and what the workers do
    over    the process has left the run, and how

A resumed run goes on in the same file. Nothing is read from it but by `repo-agent status`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError

from harness.records import Record
from harness.redaction import Redactor
from sandboxes.run_scope import owner_of

PROGRESS_FILE = "progress.jsonl"
MOST_WORKERS = 32
State = Literal["ended", "interrupted", "stopped", "failed"]


class Began(Record):
    """A process took the run up."""

    event: Literal["began"] = "began"
    time: float
    """Seconds since the epoch."""
    host: str
    pid: int
    owner: str
    """As sandboxes.run_scope.owner_of names it: whether it still runs can be asked on the same machine."""


class Phase(Record):
    """So many units are played from now on."""

    event: Literal["phase"] = "phase"
    time: float
    what: str
    """rollouts, forks, steps, …"""
    good: str
    """What a unit is called that ended well."""
    total: int
    before: int = 0
    """Units of the phase that were over before this process took it up; `total` does not count them."""
    before_good: int = 0


class WorkerNow(Record):
    """What one worker does, and for how long it has done that."""

    rollout: str
    step: int
    doing: str
    seconds: float


class Figures(Record):
    """Counts of a phase, and what the run has cost so far."""

    what: str
    """The phase's."""
    done: int = 0
    good: int = 0
    unscored: int = 0
    cost_usd: float = 0.0
    tokens: int = 0


class Unit(Figures):
    """A unit is over."""

    event: Literal["unit"] = "unit"
    time: float
    line: str


class Beat(Figures):
    """The run goes on."""

    event: Literal["beat"] = "beat"
    time: float
    workers: tuple[WorkerNow, ...] = ()
    """MOST_WORKERS at most: those that have been at what they do the longest."""
    busy: int = 0
    """All of them."""


class Over(Record):
    """The process has left the run."""

    event: Literal["over"] = "over"
    time: float
    state: State
    why: str = ""


ProgressEvent = Began | Phase | Unit | Beat | Over
_EVENT: TypeAdapter[ProgressEvent] = TypeAdapter(Annotated[ProgressEvent, Field(discriminator="event")])


def decode_progress(line: bytes) -> ProgressEvent | None:
    """The event of a line; None for half a line, as a crash leaves it, and for what another version wrote."""
    try:
        return _EVENT.validate_json(line)
    except ValidationError:
        return None


class ProgressLog:
    """The writer, from the moment when a process takes a run up until it leaves it; a context manager.

    A run does not depend on it: where it cannot be written (a full disk), that is said once and the run goes on.

    Args:
        say: told of that.
    """

    def __init__(self, directory: Path, say: Callable[[str], None]) -> None:
        self.path = directory / PROGRESS_FILE
        self._say, self._redact, self._lock = say, Redactor(), threading.Lock()
        self._file = -1
        self._state: State | None = None
        self._why = ""

    def write(self, event: ProgressEvent) -> None:
        fields = self._redact.values(event.model_dump(mode="json"))
        line = json.dumps({"event": event.event, **fields}, ensure_ascii=False, separators=(",", ":"))
        with self._lock:
            if self._file < 0:
                return
            try:
                os.write(self._file, f"{line}\n".encode(errors="replace"))
            except OSError as error:
                self._give_up(error)

    def leave(self, state: State, why: str = "") -> None:
        """How the run is left, where that is not to be told from an error that passes by."""
        self._state, self._why = state, why

    def _give_up(self, error: OSError) -> None:
        self._say(f"cannot write {self.path} ({error.strerror}): `status` will not know how this run goes on")
        self.close()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            size = os.fstat(self._file).st_size
            if size and os.pread(self._file, 1, size - 1) != b"\n":
                os.write(self._file, b"\n")  # half a line is left of a killed process
        except OSError as error:
            self._give_up(error)
        pid = os.getpid()
        self.write(Began(time=time.time(), host=os.uname().nodename, pid=pid, owner=owner_of(pid)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        state, why = self._state or _state_of(kind), self._why or ("" if error is None else _said(error))
        self.write(Over(time=time.time(), state=state, why=why))
        self.close()


def _state_of(kind: type[BaseException] | None) -> State:
    if kind is None:
        return "ended"
    return "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]
