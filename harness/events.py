"""The events of a trace log as they stand on disk, one JSON object a line, and steps made from them again.

What one event says, no other says again: the text of a step stands in its completion event, the expected tests in the
start event, the messages of a test report in the observation.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from harness.errors import UsageError
from harness.records import (
    FORMAT_VERSION,
    Completion,
    Header,
    Note,
    Record,
    Score,
    Step,
    StopReason,
    TestReport,
)
from tools.files import ToolErrorKind
from tools.protocol import FINAL, ParseProblem, ToolCall, parse


class StartEvent(Record):
    """A rollout begins."""

    event: Literal["start"] = "start"
    format: int
    """FORMAT_VERSION of who wrote it."""
    time: float
    """Seconds since the epoch."""
    header: Header


class CompletionEvent(Record):
    """The policy spoke; nothing was done yet."""

    event: Literal["completion"] = "completion"
    rollout: str
    step: str
    parent: str | None
    time: float
    completion: Completion


class StoredCall(Record):
    """A call without its text and arguments."""

    name: str = ""
    problem: ParseProblem | None = None
    repaired: bool = False
    detail: str = ""
    answer: str | None = None
    """What a final answer says where its text is no message of the protocol: the answer to a question."""


class StoredReport(Record):
    """A test report without messages and expected tests."""

    outcomes: dict[str, str]
    seconds: float = 0.0
    timed_out: bool = False
    stopped_early: bool = False
    tampered: str = ""
    output_tail: str = ""
    cached: bool = False


class StoredStep(Record):
    """A step without what other events hold."""

    id: str
    parent: str | None
    call: StoredCall
    error: ToolErrorKind | None = None
    truncated: bool = False
    observation: str | None = None
    report: StoredReport | None = None
    digest: str = ""
    loop: bool = False
    tool_seconds: float = 0.0
    test_seconds: float = 0.0


class OutcomeEvent(Record):
    """What the completion led to."""

    event: Literal["outcome"] = "outcome"
    rollout: str
    step: StoredStep


class DoneEvent(Record):
    """The agent is done; the score is still to be taken."""

    event: Literal["done"] = "done"
    rollout: str
    stop: StopReason


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


class NoteEvent(Record):
    """Something that was found out later."""

    event: Literal["note"] = "note"
    rollout: str
    time: float
    note: Annotated[Note, Field(discriminator="kind")]


Event = StartEvent | CompletionEvent | OutcomeEvent | DoneEvent | EndEvent | NoteEvent
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])
_STORED_CALL, _STORED_REPORT = set(StoredCall.model_fields) - {"answer"}, set(StoredReport.model_fields)


def decode(line: bytes, where: Callable[[], str]) -> Event:
    """The event of a line. Raises UsageError for what is none, or of another format; `where` names the line."""
    try:
        event = _EVENT.validate_json(line)
    except ValidationError as error:
        raise UsageError(f"{where()}: {_fault(line, error)}") from error
    if isinstance(event, StartEvent) and event.format != FORMAT_VERSION:
        raise UsageError(f"{where()}: {_other_format(event.format)}")
    return event


def _other_format(found: object) -> str:
    return f"trace format {found}, this version reads {FORMAT_VERSION}"


def _fault(line: bytes, error: ValidationError) -> str:
    try:
        data = json.loads(line)
        if data["event"] == "start" and data["format"] != FORMAT_VERSION:
            return _other_format(data["format"])
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"not an event of a trace ({place + ': ' if place else ''}{first['msg']})"


def stored(step: Step) -> StoredStep:
    """What the outcome event holds of a step."""
    report = StoredReport(**step.report.model_dump(include=_STORED_REPORT)) if step.report else None
    fields: dict[str, Any] = {name: getattr(step, name) for name in StoredStep.model_fields}
    call = StoredCall(**step.call.model_dump(include=_STORED_CALL), answer=_answer(step.call))
    return StoredStep(**fields | {"call": call, "report": report})


def _answer(call: ToolCall) -> str | None:
    if call.name != FINAL or call.problem is not None or parse(call.raw).args == call.args:
        return None
    return str(call.args["summary"])


def restored(step: StoredStep, completion: Completion, expected: tuple[str, ...]) -> Step:
    """The step again. What was validated when it was read is not validated once more."""
    fields: dict[str, Any] = dict(vars(step))
    if step.report:
        fields["report"] = TestReport.model_construct(**vars(step.report), expected=expected, messages={})
    return Step.model_construct(**fields | {"call": _call(step.call, completion.text), "completion": completion})


def _call(call: StoredCall, text: str) -> ToolCall:
    args: dict[str, Any] = {}
    if call.answer is not None:
        args = {"summary": call.answer}
    elif call.repaired:
        args = parse(text).args
    elif call.problem is None:
        said = json.loads(text)
        args = {key: said[key] for key in said if key != "type"} if call.name == FINAL else said.get("args", {})
    fields = {name: value for name, value in vars(call).items() if name in _STORED_CALL}
    return ToolCall.model_construct(**fields, args=args, raw=text)
