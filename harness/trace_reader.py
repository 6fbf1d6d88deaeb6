"""Reads a trace log: an index of where each rollout's events lie, and traces made from it one at a time.

The index takes some bytes per event; texts are read when a trace is asked for, so that a log of any size can be gone
through. A torn last line, as a crash leaves it, is measured and skipped.
"""

from __future__ import annotations

import os
import re
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.errors import UsageError
from harness.events import (
    CompletionEvent,
    DoneEvent,
    EndEvent,
    Event,
    NoteEvent,
    OutcomeEvent,
    StartEvent,
    decode,
    restored,
)
from harness.records import Completion, ForkPoint, Header, Note, Step, Trace
from harness.trace_store import TRACES, ended

_HEAD = re.compile(rb'\{"event":"(completion|outcome|done|end)","rollout":"([^"\\]*)"')
_KEPT_PATHS, _DEEPEST = 4, 100
_BLOCK = 2**16


@dataclass
class _Place:
    """Where a rollout's events lie in the file."""

    fork: ForkPoint | None
    lines: array[int] = field(default_factory=lambda: array("Q"))
    """Offsets of its lines."""
    sizes: array[int] = field(default_factory=lambda: array("Q"))
    """Lengths of its lines in bytes."""
    ended: int = -1
    """Offset of its last end event, -1 for none."""


class TraceLog:
    """One log, or that of a run directory; a context manager.

    Raises:
        UsageError: it cannot be read, or a line other than a torn last one is no event of this format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path / TRACES if path.is_dir() else path
        try:
            self._file = self.path.open("rb", buffering=_BLOCK)
        except OSError as error:
            raise UsageError(f"cannot read traces: {self.path}: {error.strerror}") from error
        self.torn_bytes = 0
        """Length of a torn last line, 0 for none."""
        self._places: dict[str, _Place] = {}
        self._notes: dict[str, list[Note]] = {}
        self._paths: OrderedDict[str, Trace] = OrderedDict()
        self._reading: set[str] = set()
        """Rollouts whose paths are wanted by forks that are being read."""
        try:
            self._index()
        except BaseException:
            self._file.close()
            raise

    def _index(self) -> None:
        offset = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                self.torn_bytes = len(line)
                return
            self._take(line, offset)
            offset += len(line)

    def _take(self, line: bytes, offset: int) -> None:
        found = _HEAD.match(line)
        if found:
            kind, rollout = found[1].decode(), found[2].decode(errors="replace")
        else:
            event = decode(line, lambda: self._where(offset))
            if isinstance(event, NoteEvent):
                self._notes.setdefault(event.rollout, []).append(event.note)
                return
            kind = event.event
            rollout = event.header.rollout if isinstance(event, StartEvent) else event.rollout
            if isinstance(event, StartEvent):
                if rollout in self._places:
                    raise UsageError(f"{self._where(offset)}: rollout {rollout} starts a second time")
                self._places[rollout] = _Place(event.header.fork)
        if rollout not in self._places:
            raise UsageError(f"{self._where(offset)}: rollout {rollout} has events but no start")
        place = self._places[rollout]
        place.lines.append(offset)
        place.sizes.append(len(line))
        place.ended = offset if kind == "end" else place.ended

    def _where(self, offset: int) -> str:
        with self.path.open("rb") as file:
            number = 1
            while file.tell() < offset and file.readline():
                number += 1
        return f"{self.path}:{number}"

    # ---- what is in it

    @property
    def rollouts(self) -> list[str]:
        """The ids of all rollouts in the order in which they ended; those that did not end come last."""
        over = sorted((place.ended, rollout) for rollout, place in self._places.items() if place.ended >= 0)
        return [rollout for _, rollout in over] + [key for key, place in self._places.items() if place.ended < 0]

    @property
    def notes(self) -> Iterator[Note]:
        """All notes; no step is read for them."""
        return chain.from_iterable(self._notes.values())

    def __contains__(self, rollout: str) -> bool:
        return rollout in self._places

    def __iter__(self) -> Iterator[Trace]:
        """All rollouts as linear paths, in the order of `rollouts`."""
        return map(self.trace, self.rollouts)

    def leaves(self) -> Iterator[Trace]:
        """The paths that no other goes on from: forks and rollouts whose last step is nobody's fork point."""
        forked = {(place.fork.rollout, place.fork.step) for place in self._places.values() if place.fork}
        for trace in self:
            if not trace.steps or (trace.header.rollout, trace.steps[-1].id) not in forked:
                yield trace

    def trace(self, rollout: str) -> Trace:
        """One rollout. Raises UsageError for an unknown one, or for a line that is no event."""
        if rollout not in self._places:
            raise UsageError(f"{self.path} has no rollout {rollout}")
        trace = self._read(rollout)
        return trace.model_copy(update={"notes": tuple(self._notes.get(rollout, ()))})

    def header(self, rollout: str) -> Header:
        """What a rollout's start event says, its steps unread; a fork's prompt is empty there. Raises UsageError."""
        if rollout not in self._places:
            raise UsageError(f"{self.path} has no rollout {rollout}")
        start = next(self._events(self._places[rollout]))
        assert isinstance(start, StartEvent)
        return start.header

    def _read(self, rollout: str) -> Trace:
        place = self._places[rollout]
        shared = self._shared(place.fork) if place.fork else None
        trace = _Assembly(shared)
        for event in self._events(place):
            trace.take(event)
        return trace.finish()

    def _events(self, place: _Place) -> Iterator[Event]:
        for offset, size in zip(place.lines, place.sizes, strict=True):
            line = os.pread(self._file.fileno(), size, offset)
            yield decode(line, lambda offset=offset: self._where(offset))  # type: ignore[misc]

    def _shared(self, fork: ForkPoint) -> Trace:
        """The path to a fork point; the last few rollouts that were forked are kept, for forks come in groups."""
        if fork.rollout not in self._paths:
            if fork.rollout not in self._places:
                raise UsageError(f"{self.path}: a rollout is forked from {fork.rollout}, which is not there")
            if fork.rollout in self._reading or len(self._reading) > _DEEPEST:
                raise UsageError(f"{self.path}: rollout {fork.rollout} is forked from itself, or too deeply")
            self._reading.add(fork.rollout)
            self._paths[fork.rollout] = self._read(fork.rollout)
            self._reading.discard(fork.rollout)
        self._paths.move_to_end(fork.rollout)
        while len(self._paths) > _KEPT_PATHS:
            self._paths.popitem(last=False)
        path = self._paths[fork.rollout]
        count = next((number for number, step in enumerate(path.steps, 1) if step.id == fork.step), 0)
        if fork.step is not None and not count:
            raise UsageError(f"{self.path}: a rollout is forked from step {fork.step} of {fork.rollout}, not there")
        return path.model_copy(update={"steps": path.steps[:count]})

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Assembly:
    """A trace in the making, event by event."""

    def __init__(self, shared: Trace | None) -> None:
        self._shared = shared
        self._steps: list[Step] = list(shared.steps) if shared else []
        self._header: Header | None = None
        self._said: CompletionEvent | None = None
        self._done: DoneEvent | None = None
        self._end: EndEvent | None = None

    def take(self, event: Event) -> None:
        match event:
            case StartEvent():
                prompt = self._shared.header.prompt if self._shared else event.header.prompt
                self._header = event.header.model_copy(update={"prompt": prompt})
            case CompletionEvent():
                self._said, self._done, self._end = event, None, None
            case OutcomeEvent():
                self._add(event)
            case DoneEvent():
                self._done = event
            case EndEvent():
                self._end = event

    def _add(self, event: OutcomeEvent) -> None:
        if self._header is None or self._said is None or self._said.step != event.step.id:
            raise UsageError(f"rollout {event.rollout}: step {event.step.id} has an outcome but no completion")
        last = self._steps[-1].id if self._steps else None
        if event.step.parent != last:
            raise UsageError(f"rollout {event.rollout}: step {event.step.id} stands behind step {last}: lines are lost")
        try:
            self._steps.append(restored(event.step, self._said.completion, self._header.expected_tests))
        except (ValueError, AttributeError, RecursionError) as error:
            raise UsageError(f"rollout {event.rollout}: step {event.step.id} is not the call that it says") from error
        self._said = None

    def finish(self) -> Trace:
        assert self._header is not None
        pending: Completion | None = self._said.completion if self._said else None
        trace = Trace.model_construct(
            header=self._header,
            steps=tuple(self._steps),
            shared=len(self._shared.steps) if self._shared else 0,
            pending=pending,
            done=self._done.stop if self._done else None,
        )
        return ended(trace, self._end) if self._end else trace


def read_traces(path: Path) -> Iterator[Trace]:
    """The traces of a log, or of a run directory, one at a time: see TraceLog."""
    with TraceLog(path) as log:
        yield from log
