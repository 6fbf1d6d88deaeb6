"""The four file tools. They work on the Workspace alone: no container, no host file, no symbolic link of the host.

A tool's fault (no such file, not editable, a bad pattern, …) is a result that the model sees, never an exception.
"""

from __future__ import annotations

import math
import re
import string
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

import regex
from pydantic import BaseModel, ConfigDict

from sandboxes.workspace import Mode, PathError, Workspace, clean_path
from tools.protocol import Grep, ListFiles, ReadFile, ToolCall, WriteFile, arguments

MAX_FILE_BYTES = 5 * 2**20
MAX_RESULT_CHARS = 100_000
MAX_LINE_CHARS = 400
GREP_LIMIT_S = 2.0
MAX_REPEATS = 10_000
"""Product of all numbers in a pattern's braces: counted repeats are unrolled when a pattern is compiled."""
_REPEATS = regex.compile(r"(?<=[{,])\s*(0*[1-9]\d*)(?=\s*[,}])")
_RECURSION = re.compile(r"\(\?(R|&|P>|[+-]?\d)")
"""Subpattern calls: their stack takes memory by the gigabyte."""
_WITHIN_LINE = re.compile(
    r"(?:\\[wdb.()\[\]{}*+?|^$\\]"
    r"|[\w ,:;=<>\"'/@#%&!~.-]|\[[A-Za-z0-9_.,-]+\]|\((?!\?)|[)|]"
    r"|[*+?](?!\+)|\{\d+(?:,\d*)?\}(?!\+))+"
)
"""Patterns of which no part can match a line's end: a match lies in one line, so a whole file is searched at once."""
_PLAIN = string.ascii_letters + string.digits + "_ "


class ToolErrorKind(StrEnum):
    """Why a tool did not do what it was asked."""

    NOT_FOUND = "not_found"
    BAD_PATH = "bad_path"
    NOT_TEXT = "not_text"
    TOO_LARGE = "too_large"
    BAD_PATTERN = "bad_pattern"
    TOO_SLOW = "too_slow"
    NOT_EDITABLE = "not_editable"
    PARTLY_SEEN = "partly_seen"
    PARSE = "parse"
    """The message was no usable call (see ParseProblem)."""


class ToolResult(BaseModel):
    """What a call gave."""

    model_config = ConfigDict(frozen=True)

    content: str
    error: ToolErrorKind | None = None
    truncated: bool = False


class ToolFault(Exception):
    """An expected fault of a call, on its way to becoming a ToolResult."""

    def __init__(self, kind: ToolErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class FileState:
    """A workspace, and of each file that was read the line numbers (from 1) that no read has shown yet."""

    workspace: Workspace
    unseen: Mapping[str, frozenset[int]] = field(default_factory=lambda: MappingProxyType({}))

    def with_unseen(self, path: str, lines: frozenset[int]) -> FileState:
        return FileState(self.workspace, MappingProxyType({**self.unseen, path: lines}))


def execute(state: FileState, call: ToolCall, editable: Callable[[str], bool]) -> tuple[FileState, ToolResult]:
    """Carry out a usable call; the new state is the old one unless a file was written or read."""
    args = arguments(call)
    try:
        match args:
            case ListFiles():
                return state, list_files(state.workspace, args)
            case ReadFile():
                return read_file(state, args)
            case Grep():
                return state, grep(state.workspace, args)
            case WriteFile():
                return write_file(state, args, editable)
    except ToolFault as fault:
        return state, ToolResult(content=f"error: {fault}", error=fault.kind)
    except PathError as error:
        return state, ToolResult(content=f"error: {error}", error=ToolErrorKind.BAD_PATH)
    raise TypeError(f"no tool takes {type(args).__name__}")


def list_files(workspace: Workspace, args: ListFiles) -> ToolResult:
    """One path per line."""
    paths = list(_below(workspace, args.rel_dir))
    shown = paths[: args.max_files]
    lines = [*shown, f"[{len(paths) - len(shown)} more files not shown]"] if len(shown) < len(paths) else shown
    return _bounded("\n".join(lines) or "[no files]", truncated=len(shown) < len(paths))


def read_file(state: FileState, args: ReadFile) -> tuple[FileState, ToolResult]:
    """The text from `start_line` on, whole lines only as far as `max_chars` goes, with a note where it was cut."""
    path = _existing(state.workspace, args.rel_path)
    lines = lines_of(_text(state.workspace, path))
    if not lines:
        return state.with_unseen(path, frozenset()), ToolResult(content="[empty file]")
    if args.start_line > len(lines):
        raise ToolFault(ToolErrorKind.NOT_FOUND, f"{path!r} has {len(lines)} lines")
    shown, room = [], args.max_chars
    for line in lines[args.start_line - 1 :]:
        if len(line) > room:
            break
        shown.append(line)
        room -= len(line)
    last = args.start_line - 1 + len(shown)
    text = "".join(shown)
    cut = last < len(lines)
    if cut:
        text += "" if shown else lines[last][: args.max_chars] + "\n"
        text += f"[cut: lines {args.start_line} to {last} of {len(lines)} shown]\n"
    seen = range(args.start_line, last + 1)
    unseen = state.unseen.get(path, frozenset(range(1, len(lines) + 1))).difference(seen)
    return state.with_unseen(path, unseen), ToolResult(content=text, truncated=cut or args.start_line > 1)


def write_file(state: FileState, args: WriteFile, editable: Callable[[str], bool]) -> tuple[FileState, ToolResult]:
    """Replace or make a file that the task allows to be edited."""
    path = clean_path(args.rel_path)
    if not editable(path):
        raise ToolFault(ToolErrorKind.NOT_EDITABLE, f"{path!r} may not be edited in this task")
    if state.unseen.get(path) and path in state.workspace:
        raise ToolFault(
            ToolErrorKind.PARTLY_SEEN,
            f"{path!r} was only read in part, and writing it would lose the rest: "
            "read the other lines first (start_line)",
        )
    existed = path in state.workspace
    workspace = state.workspace.write(path, args.content.encode())
    done = FileState(workspace, state.unseen).with_unseen(path, frozenset())
    count = len(lines_of(args.content))
    return done, ToolResult(content=f"{'replaced' if existed else 'created'} {path} ({count} lines)")


def grep(workspace: Workspace, args: Grep) -> ToolResult:
    """`path:line:text` per match. Ends within GREP_LIMIT_S whatever the pattern."""
    if _RECURSION.search(args.pattern):
        raise ToolFault(ToolErrorKind.BAD_PATTERN, "bad regular expression: a pattern may not call itself")
    repeats = [int(number) for number in _REPEATS.findall(args.pattern)]
    if math.prod(repeats) > MAX_REPEATS:
        raise ToolFault(ToolErrorKind.BAD_PATTERN, f"bad regular expression: more than {MAX_REPEATS} repeats in all")
    try:
        pattern = regex.compile(args.pattern)
    except (regex.error, RecursionError, OverflowError, ValueError, MemoryError) as error:
        raise ToolFault(ToolErrorKind.BAD_PATTERN, f"bad regular expression: {error}") from error
    within_line = _WITHIN_LINE.fullmatch(args.pattern) is not None
    search = _Search(pattern, literal_prefix(args.pattern), within_line, time.monotonic() + GREP_LIMIT_S)
    lines: list[str] = []
    for path in _searched(workspace, args.rel_dir):
        file = workspace.file(path)
        if file.mode is Mode.SYMLINK or len(file.content) > MAX_FILE_BYTES or b"\0" in file.content[:8192]:
            continue
        for number, line in search.lines(file.content):
            if len(lines) == args.max_matches:
                return _bounded("\n".join([*lines, f"[stopped after {args.max_matches} matches]"]), truncated=True)
            lines.append(f"{path}:{number}:{line[:MAX_LINE_CHARS]}")
    return _bounded("\n".join(lines) or "[no matches]")


@dataclass(frozen=True)
class _Search:
    pattern: regex.Pattern[str]
    literal: bytes
    within_line: bool
    deadline: float

    def lines(self, content: bytes) -> Iterator[tuple[int, str]]:
        """The matching lines with their numbers."""
        if self.literal not in content or (self.within_line and not self._matches(content.decode(errors="replace"))):
            return
        for number, line in self._led(content) if self.literal else self._all(content):
            if self._matches(line):
                yield number, line

    def _matches(self, line: str) -> bool:
        try:
            left = self.deadline - time.monotonic()
            return (left > 0 and self.pattern.search(line, timeout=left, concurrent=True) is not None) or self._over()
        except (TimeoutError, MemoryError):
            raise self._slow() from None

    def _over(self) -> bool:
        if time.monotonic() >= self.deadline:
            raise self._slow()
        return False

    def _slow(self) -> ToolFault:
        advice = "make it simpler or name a smaller rel_dir"
        return ToolFault(ToolErrorKind.TOO_SLOW, f"the pattern took longer than {GREP_LIMIT_S:g} s: {advice}")

    def _all(self, content: bytes) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(lines_of(content.decode(errors="replace")), start=1):
            yield number, line.rstrip("\r\n")

    def _led(self, content: bytes) -> Iterator[tuple[int, str]]:
        """Only the lines that hold the literal text which every match begins with."""
        number, counted = 1, 0
        at = content.find(self.literal)
        while at >= 0:
            start = content.rfind(b"\n", 0, at) + 1
            end = content.find(b"\n", at)
            end = len(content) if end < 0 else end
            number += content.count(b"\n", counted, start)
            counted = start
            yield number, content[start:end].decode(errors="replace").rstrip("\r")
            at = content.find(self.literal, end)


def lines_of(text: str) -> list[str]:
    """Lines with their ends, split at newlines only (form feeds and the like do not end a line of a source file)."""
    parts = [part + "\n" for part in text.split("\n")]
    parts[-1] = parts[-1][:-1]
    return parts if parts[-1] else parts[:-1]


def literal_prefix(pattern: str) -> bytes:
    """Text that every match of the pattern begins with; empty where that is not plain to see."""
    rest = pattern.lstrip(_PLAIN)
    plain = pattern[: len(pattern) - len(rest)]
    if "|" in pattern or "(?" in pattern:
        return b""
    return (plain[:-1] if rest[:1] in ("*", "?", "{", "+") else plain).encode()


def _bounded(text: str, truncated: bool = False) -> ToolResult:
    if len(text) > MAX_RESULT_CHARS:
        text, truncated = text[:MAX_RESULT_CHARS] + "\n[the result is cut here]", True
    return ToolResult(content=text, truncated=truncated)


def _is_file(workspace: Workspace, path: str) -> bool:
    return workspace.resolve(clean_path(path)) in workspace


def _searched(workspace: Workspace, path: str) -> Iterable[str]:
    """The files below a directory, or the one that was named: that must be text."""
    if not _is_file(workspace, path):
        return _below(workspace, path)
    found = _existing(workspace, path)
    _text(workspace, found)
    return [found]


def _existing(workspace: Workspace, path: str) -> str:
    """The canonical path of an existing file, links followed."""
    found = workspace.resolve(clean_path(path))
    if found in workspace:
        return found
    if workspace.is_directory(found):
        raise ToolFault(ToolErrorKind.BAD_PATH, f"is a directory: {path!r}")
    raise ToolFault(ToolErrorKind.NOT_FOUND, f"no such file: {path!r}")


def _below(workspace: Workspace, path: str) -> Iterator[str]:
    found = workspace.resolve(clean_path(path))
    if found in workspace:
        raise ToolFault(ToolErrorKind.BAD_PATH, f"not a directory: {path!r}")
    if not workspace.is_directory(found):
        raise ToolFault(ToolErrorKind.NOT_FOUND, f"no such directory: {path!r}")
    return workspace.below(found)


def _text(workspace: Workspace, path: str) -> str:
    content = workspace.file(path).content
    if len(content) > MAX_FILE_BYTES:
        raise ToolFault(ToolErrorKind.TOO_LARGE, f"{path!r} has {len(content)} bytes, more than can be read")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ToolFault(ToolErrorKind.NOT_TEXT, f"{path!r} is not UTF-8 text") from None
    if "\0" in text:
        raise ToolFault(ToolErrorKind.NOT_TEXT, f"{path!r} is a binary file")
    return text
