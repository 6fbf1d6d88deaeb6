"""Traces on disk: an append-only log of events, one JSON object a line, written as each thing happens.

A completion is written when it arrives, before a tool or a test runs, so that no paid call is lost. `Trace` is a view
of the log. One process owns a file: the writer locks it.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError

from harness.errors import UsageError
from harness.records import FORMAT_VERSION, Completion, Header, Message, Record, Score, Step, StopReason, Trace
from harness.redaction import Redactor
from harness.rollout import RolloutEnded
from tools.protocol import parse

TRACES = "traces.jsonl"


class StartEvent(Record):
    """A rollout begins."""

    event: Literal["start"] = "start"
    format: int = FORMAT_VERSION
    time: float
    """Seconds since the epoch."""
    header: Header


class CompletionEvent(Record):
    """The policy spoke; nothing was done yet."""

    event: Literal["completion"] = "completion"
    rollout: str
    step: str
    parent: str | None
    completion: Completion


class OutcomeEvent(Record):
    """What the completion led to. The step's text and arguments stand in the completion, the messages of its test
    report in the observation; neither is written twice.
    """

    event: Literal["outcome"] = "outcome"
    rollout: str
    step: Step


class EndEvent(Record):
    """The rollout is over."""

    event: Literal["end"] = "end"
    rollout: str
    stop: StopReason
    score: Score
    error: str
    patch: str
    seconds: float
    score_seconds: float


Event = Annotated[StartEvent | CompletionEvent | OutcomeEvent | EndEvent, Field(discriminator="event")]
_EVENT: TypeAdapter[Event] = TypeAdapter(Event)
_LEFT_OUT: Any = {"step": {"completion": True, "call": {"raw", "args"}, "report": {"messages"}}}


class TraceStore:
    """The writer of one log; safe to use from several threads."""

    def __init__(self, directory: Path, redact: Redactor | None = None) -> None:
        self.path = directory / TRACES
        self._redact = redact or Redactor()
        self._lock = threading.Lock()
        self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise UsageError(f"another process is writing {self.path}") from None
        _cut_torn_line(self._file, self.path)

    def append(self, event: Event) -> None:
        exclude = _LEFT_OUT if isinstance(event, OutcomeEvent) else None
        fields = self._redact.values(event.model_dump(mode="json", exclude=exclude))
        line = json.dumps({**fields, "event": event.event}, ensure_ascii=False, separators=(",", ":"))
        data = f"{line}\n".encode(errors="replace")
        with self._lock:
            while data:
                data = data[os.write(self._file, data) :]

    def recorder(self, header: Header) -> RolloutRecorder:
        return RolloutRecorder(self, header)

    def close(self) -> None:
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _cut_torn_line(file: int, path: Path) -> None:
    """A crash may have left half a line, which the next event must not be written behind."""
    content = path.read_bytes()
    os.ftruncate(file, content.rfind(b"\n") + 1)


class RolloutRecorder:
    """Writes the events of one rollout, and keeps its Trace for the report."""

    def __init__(self, store: TraceStore, header: Header) -> None:
        self._store, self._began = store, time.monotonic()
        self._steps: list[Step] = []
        self.trace = Trace(header=header)

    def start(self, prompt: tuple[Message, ...]) -> None:
        header = self.trace.header.model_copy(update={"prompt": prompt})
        self.trace = Trace(header=header)
        self._store.append(StartEvent(time=time.time(), header=header))

    def completion(self, step_id: str, parent: str | None, completion: Completion) -> None:
        rollout = self.trace.header.rollout
        self._store.append(CompletionEvent(rollout=rollout, step=step_id, parent=parent, completion=completion))

    def outcome(self, step: Step) -> None:
        self._store.append(OutcomeEvent(rollout=self.trace.header.rollout, step=step))
        self._steps.append(step)

    def end(self, end: RolloutEnded) -> None:
        event = EndEvent(
            rollout=self.trace.header.rollout,
            stop=end.stop,
            score=end.score,
            error=end.error,
            patch=end.patch,
            seconds=time.monotonic() - self._began,
            score_seconds=end.score_seconds,
        )
        self._store.append(event)
        self.trace = _ended(self.trace.header, self._steps, event)


def _ended(header: Header, steps: list[Step], end: EndEvent) -> Trace:
    return Trace(
        header=header,
        steps=tuple(steps),
        stop=end.stop,
        score=end.score,
        error=end.error,
        patch=end.patch,
        seconds=end.seconds,
        score_seconds=end.score_seconds,
    )


def read_traces(path: Path) -> Iterator[Trace]:
    """The traces of a log (or of a run directory), each when it ends; those that never ended come last, `stop` None.

    A torn last line, as a crash leaves it, is skipped. Raises UsageError for any other line that is no event of this
    format.
    """
    log = path / TRACES if path.is_dir() else path
    headers: dict[str, Header] = {}
    steps: dict[str, list[Step]] = {}
    for event in read_events(log):
        if not isinstance(event, StartEvent) and event.rollout not in headers:
            raise UsageError(f"{log}: rollout {event.rollout} has events but no start")
        match event:
            case StartEvent():
                headers[event.header.rollout] = event.header
                steps[event.header.rollout] = []
            case OutcomeEvent():
                steps[event.rollout].append(event.step)
            case EndEvent():
                yield _ended(headers.pop(event.rollout), steps.pop(event.rollout), event)
    for rollout, header in headers.items():
        yield Trace(header=header, steps=tuple(steps[rollout]))


def read_events(log: Path) -> Iterator[Event]:
    """The events of a log, steps completed with what their completion event holds."""
    said: dict[tuple[str, str], Completion] = {}
    try:
        file = log.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read traces: {log}: {error.strerror}") from error
    with file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            event = _event(line, said, f"{log}:{number}")
            if isinstance(event, CompletionEvent):
                said[event.rollout, event.step] = event.completion
            yield event


def _event(line: bytes, said: dict[tuple[str, str], Completion], where: str) -> Event:
    try:
        data = json.loads(line)
        if data.get("event") == "start" and data.get("format") != FORMAT_VERSION:
            raise UsageError(f"{where}: trace format {data.get('format')}, this version reads {FORMAT_VERSION}")
        if data.get("event") == "outcome":
            completion = said.pop((data["rollout"], data["step"]["id"]))
            call = parse(completion.text)
            data["step"]["completion"] = completion
            data["step"]["call"] |= {"raw": completion.text, "args": call.args}
        return _EVENT.validate_python(data)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError, ValidationError) as error:
        raise UsageError(f"{where}: not an event of a trace ({type(error).__name__})") from error
