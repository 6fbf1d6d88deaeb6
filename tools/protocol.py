"""The JSON tool protocol: one assistant message is one JSON object.

`{"type": "tool_call", "name": …, "args": {…}}` calls a tool, `{"type": "final", "summary": …}` ends the episode. What a
model writes instead is never raised away: `parse` always returns a `ToolCall`, with the problem named, and with
`repaired` set where the intended call could still be read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sandboxes.workspace import PathError, clean_path

RESULT_HEAD = "[tool_result]"
FINAL = "final"
_MAX_STARTS = 50


class ParseProblem(StrEnum):
    """Why a message is not strictly one protocol object."""

    CODE_FENCE = "code_fence"
    """The object stands in a Markdown code fence."""
    TEXT_AROUND = "text_around"
    """There is text before or after the object."""
    SEVERAL_OBJECTS = "several_objects"
    """More than one protocol object; the first counts."""
    RAW_CONTROL = "raw_control"
    """Unescaped newlines or other control characters inside a string."""
    TRUNCATED = "truncated"
    """The object does not end: the completion was cut off."""
    NOT_JSON = "not_json"
    """No JSON object can be found."""
    NOT_PROTOCOL = "not_protocol"
    """A JSON value, but neither a tool call nor a final answer."""
    UNKNOWN_TOOL = "unknown_tool"
    """A tool call that names no tool of this protocol."""
    BAD_ARGUMENTS = "bad_arguments"
    """Arguments of the wrong name, type or range."""
    NO_ANSWER = "no_answer"
    """The answer to a question has no number, or more than one."""


class ToolCall(BaseModel):
    """One parsed message. `name` is empty where none could be read; a final answer has the name 'final'."""

    model_config = ConfigDict(frozen=True)

    name: str = ""
    args: dict[str, Any] = Field(default_factory=dict)
    raw: str = ""
    problem: ParseProblem | None = None
    repaired: bool = False
    """There was a problem, and the intended call was read all the same: it is carried out."""
    detail: str = ""

    @property
    def usable(self) -> bool:
        return self.problem is None or self.repaired

    @property
    def canonical(self) -> str:
        """Tool and arguments in one form, defaults filled in; the raw text where nothing was read."""
        if not self.usable:
            return f"{self.problem}: {self.raw}"
        args = arguments(self).model_dump()
        return json.dumps(
            [self.name, {key: _canonical_path(key, value) for key, value in args.items()}], sort_keys=True
        )


class _Arguments(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ListFiles(_Arguments):
    """The files below a directory, sorted."""

    rel_dir: str = "."
    max_files: int = Field(200, ge=1, le=2000)


class ReadFile(_Arguments):
    """A file's text, from a line on."""

    rel_path: str
    max_chars: int = Field(20_000, ge=1, le=100_000)
    start_line: int = Field(1, ge=1)


class Grep(_Arguments):
    """The lines that a regular expression matches, in the files below a directory."""

    pattern: str = Field(min_length=1, max_length=1000)
    rel_dir: str = "."
    max_matches: int = Field(50, ge=1, le=1000)


class WriteFile(_Arguments):
    """Replace a file, or make a new one."""

    rel_path: str
    content: str = Field(max_length=1_000_000)


class Final(_Arguments):
    """The end of the episode."""

    summary: str = ""


TOOLS: dict[str, type[_Arguments]] = {
    "list_files": ListFiles,
    "read_file": ReadFile,
    "grep": Grep,
    "write_file": WriteFile,
}


def call_text(name: str, **args: object) -> str:
    """The message that calls a tool."""
    return json.dumps({"type": "tool_call", "name": name, "args": args}, ensure_ascii=False)


def final_text(summary: str) -> str:
    """The message that ends the episode."""
    return json.dumps({"type": FINAL, "summary": summary}, ensure_ascii=False)


def _canonical_path(key: str, value: object) -> object:
    try:
        return clean_path(value) if key in ("rel_dir", "rel_path") and isinstance(value, str) else value
    except PathError:
        return value


def arguments(call: ToolCall) -> BaseModel:
    """The typed arguments of a usable call, defaults filled in."""
    return (Final if call.name == FINAL else TOOLS[call.name]).model_validate(call.args)


def parse(text: str, cut_off: bool = False) -> ToolCall:
    """Read one assistant message. `cut_off`: the completion ended at its token limit."""
    text = text.encode(errors="replace").decode()  # half of a surrogate pair cannot be stored
    try:
        return _from_value(json.loads(text), text)
    except (ValueError, RecursionError):
        pass
    found = list(_protocol_objects(text))
    if not found:
        return _nothing_found(text, cut_off)
    call = _from_value(found[0][0], text)
    if not call.usable:
        return call
    return call.model_copy(update={"problem": _why_not_strict(text, found), "repaired": True})


def _protocol_objects(text: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Objects with a `type` of the protocol that stand anywhere in the text, each with its own text."""
    decoder = json.JSONDecoder(strict=False)
    position = text.find("{")
    for _ in range(_MAX_STARTS):
        if position < 0:
            return
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            end = position + 1
        else:
            if isinstance(value, dict) and value.get("type") in ("tool_call", FINAL):
                yield value, text[position:end]
        position = text.find("{", end)


def _why_not_strict(text: str, found: list[tuple[dict[str, Any], str]]) -> ParseProblem:
    if len(found) > 1:
        return ParseProblem.SEVERAL_OBJECTS
    around = text.replace(found[0][1], "", 1).strip()
    if not around:
        return ParseProblem.RAW_CONTROL
    if re.fullmatch(r"```\w*\s*```", around):
        return ParseProblem.CODE_FENCE
    return ParseProblem.TEXT_AROUND


def _nothing_found(text: str, cut_off: bool) -> ToolCall:
    if cut_off:
        return ToolCall(raw=text, problem=ParseProblem.TRUNCATED, detail="the message was cut off at its token limit")
    if text.lstrip().startswith(("{", "```")) and _ends_early(text):
        return ToolCall(raw=text, problem=ParseProblem.TRUNCATED, detail="the JSON object does not end")
    return ToolCall(raw=text, problem=ParseProblem.NOT_JSON, detail="no JSON object was found in the message")


def _ends_early(text: str) -> bool:
    body = text[text.find("{") :] if "{" in text else ""
    try:
        json.JSONDecoder(strict=False).raw_decode(body)
    except json.JSONDecodeError as error:
        return bool(body) and (error.pos >= len(body.rstrip()) or error.msg.startswith("Unterminated string"))
    except (ValueError, RecursionError):
        return False
    return False


def _from_value(value: object, raw: str) -> ToolCall:
    """A call from a decoded message; problems of its meaning are found here, those of its form by the caller."""
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(value, dict) or kind not in ("tool_call", FINAL):
        detail = 'the message must be an object with "type": "tool_call" or "type": "final"'
        return ToolCall(raw=raw, problem=ParseProblem.NOT_PROTOCOL, detail=detail)
    if kind == FINAL:
        return _checked(FINAL, Final, {key: item for key, item in value.items() if key != "type"}, raw)
    name, args, extra = value.get("name"), value.get("args", {}), sorted(value.keys() - {"type", "name", "args"})
    if not isinstance(name, str) or name not in TOOLS:
        detail = f"unknown tool {str(name)[:100]!r}; the tools are {', '.join(TOOLS)}"
        return ToolCall(raw=raw, problem=ParseProblem.UNKNOWN_TOOL, detail=detail)
    if extra:
        detail = f"unexpected key {extra[0][:100]!r}"
        return ToolCall(name=name, raw=raw, problem=ParseProblem.BAD_ARGUMENTS, detail=detail)
    return _checked(name, TOOLS[name], args, raw)


def _checked(name: str, model: type[_Arguments], args: object, raw: str) -> ToolCall:
    try:
        model.model_validate(args)
        if "\\u" in raw:  # only such an escape can make half of a surrogate pair
            json.dumps(args, ensure_ascii=False).encode()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "args"
        return ToolCall(name=name, raw=raw, problem=ParseProblem.BAD_ARGUMENTS, detail=f"{where[:100]}: {first['msg']}")
    except UnicodeEncodeError:
        detail = "the arguments hold half of a surrogate pair, which is not valid text"
        return ToolCall(name=name, raw=raw, problem=ParseProblem.BAD_ARGUMENTS, detail=detail)
    assert isinstance(args, dict)
    return ToolCall(name=name, args=args, raw=raw)
