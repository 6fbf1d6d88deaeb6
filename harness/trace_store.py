"""Traces on disk: an append-only log of events, one JSON object a line, written as each thing happens.

A completion is written when it arrives, before a tool or a test runs, so that no paid call is lost. `Trace` is a view
of the log (see harness.trace_reader). One process owns a file: the writer locks it.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from harness.errors import UsageError
from harness.events import CompletionEvent, DoneEvent, EndEvent, Event, NoteEvent, OutcomeEvent, StartEvent, stored
from harness.records import FORMAT_VERSION, Completion, Header, Message, Note, Step, StopReason, Trace
from harness.redaction import Redactor
from harness.rollout import Past, RolloutEnded

TRACES = "traces.jsonl"
_BLOCK = 2**16


class TraceStore:
    """The writer of one log; safe to use from several threads."""

    def __init__(self, directory: Path, redact: Redactor | None = None) -> None:
        self.path = directory / TRACES
        self._redact = redact or Redactor()
        self._lock = threading.Lock()
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise UsageError(f"another process is writing {self.path}") from None
        self.torn_bytes = _cut_torn_line(self._file)
        """Length of the half line, as a crash leaves it, that was cut off."""

    def append(self, event: Event) -> None:
        fields = self._redact.values(event.model_dump(mode="json"))
        line = json.dumps({**fields, "event": event.event}, ensure_ascii=False, separators=(",", ":"))
        data = f"{line}\n".encode(errors="replace")
        with self._lock:
            size = os.fstat(self._file).st_size
            try:
                while data:
                    data = data[os.write(self._file, data) :]
            except OSError:  # a full disk: no later event may stand behind half of this one
                os.ftruncate(self._file, size)
                raise

    def note(self, note: Note) -> None:
        """Add what was found out later."""
        self.append(NoteEvent(rollout=note.rollout, time=time.time(), note=note))

    def recorder(self, header: Header, taken_up: Trace | None = None) -> RolloutRecorder:
        """The recorder of a rollout.

        Args:
            taken_up: the rollout as far as the log has it already (a resumed one), or the steps that it shares with
                the rollout it is forked from.
        """
        return RolloutRecorder(self, header, taken_up)

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _cut_torn_line(file: int) -> int:
    """A crash may have left half a line, which the next event must not be written behind."""
    size = end = os.fstat(file).st_size
    while end:
        start = max(0, end - _BLOCK)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    os.ftruncate(file, end)
    return size - end


class RolloutRecorder:
    """Writes the events of one rollout, and keeps its Trace for the report."""

    def __init__(self, store: TraceStore, header: Header, taken_up: Trace | None = None) -> None:
        self._store, self._began = store, time.monotonic()
        self._resumed = taken_up is not None and taken_up.header.rollout == header.rollout
        self._steps = list(taken_up.steps) if taken_up else []
        shared = (taken_up.shared if self._resumed else len(self._steps)) if taken_up else 0
        self._pending = taken_up.pending if taken_up else None
        self._done = taken_up.done if taken_up and self._resumed else None
        if self._done is StopReason.BUDGET:  # it is taken up with a larger one
            self._done = None
        self._before = sum(map(_seconds, self._steps[shared:]))
        self.trace = Trace(header=header, steps=tuple(self._steps), shared=shared)

    @property
    def past(self) -> Past:
        """What the rollout has behind it."""
        return Past(self.trace.steps, self._pending, self._done)

    def start(self, prompt: tuple[Message, ...]) -> None:
        header = self.trace.header
        if not self._resumed:
            written = header if header.fork else header.model_copy(update={"prompt": prompt})
            self._store.append(StartEvent(format=FORMAT_VERSION, time=time.time(), header=written))
        self.trace = self.trace.model_copy(update={"header": header.model_copy(update={"prompt": prompt})})

    def completion(self, step_id: str, parent: str | None, completion: Completion) -> None:
        rollout = self.trace.header.rollout
        self._store.append(
            CompletionEvent(rollout=rollout, step=step_id, parent=parent, time=time.time(), completion=completion)
        )
        self.trace = self.trace.model_copy(update={"pending": completion})

    def outcome(self, step: Step) -> None:
        self._store.append(OutcomeEvent(rollout=self.trace.header.rollout, step=stored(step)))
        self._steps.append(step)
        self.trace = self.trace.model_copy(update={"pending": None})

    def done(self, stop: StopReason) -> None:
        if stop is not self._done:
            self._store.append(DoneEvent(rollout=self.trace.header.rollout, stop=stop))
        self.trace = self.trace.model_copy(update={"done": stop})

    def end(self, end: RolloutEnded) -> None:
        event = EndEvent(
            rollout=self.trace.header.rollout,
            stop=end.stop,
            score=end.score,
            error=end.error,
            patch=end.patch,
            seconds=self._before + time.monotonic() - self._began,
            score_seconds=end.score_seconds,
        )
        self._store.append(event)
        self.trace = ended(self.trace.model_copy(update={"steps": tuple(self._steps)}), event)


def _seconds(step: Step) -> float:
    return step.completion.seconds + step.tool_seconds + step.test_seconds


def ended(trace: Trace, end: EndEvent) -> Trace:
    """The trace with what its end event says."""
    said = {name: getattr(end, name) for name in ("stop", "score", "error", "patch", "seconds", "score_seconds")}
    return trace.model_copy(update=said)
