"""Checks of a file of training data, and the search for test tasks in it.

A file is read line by line: memory does not grow with it. A fault is named with its line and does not end the check.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from harness.errors import UsageError
from harness.records import Task
from sandboxes.workspace import Mode, Workspace
from suites.base import SubsetSuite, Suite, load
from tools.protocol import parse
from trainers.formats import RowFormat, RowView, inspect_row

MAX_LISTED = 20
"""Faults, and leaks, that a report lists; all are counted."""
MAX_LINE_BYTES = 64 * 2**20
BOM = b"\xef\xbb\xbf"

SHINGLE_LINES = 5
"""So many consecutive lines that are not blank make a fingerprint of a file, more where they are short."""
MIN_SHINGLE_CHARS = 80
MIN_WHOLE_CHARS = 60
"""A file without such lines is looked for as a whole, from this length on."""
MAX_REMEMBERED = 20_000
"""Texts whose search is remembered: step rows repeat the messages before them."""


@dataclass(frozen=True)
class Fault:
    """What is wrong in one line, from 1."""

    line: int
    text: str


@dataclass(frozen=True)
class Source:
    """Where guarded text comes from: a file of a test task as the agent gets it, or as the reference repairs it."""

    task: str
    file: str
    reference: bool = False


@dataclass(frozen=True)
class Leak:
    """Text of a test task in one line of the data; `hits` counts the fingerprints that were found there."""

    line: int
    source: Source
    hits: int


@dataclass
class CheckReport:
    """What one file holds. It is sound without faults and leaks."""

    rows: Counter[RowFormat] = field(default_factory=Counter)
    last_format: RowFormat | None = None
    messages: int = 0
    trained: int = 0
    last_only: int = 0
    """SFT rows that train their last message only, as step rows do."""
    malformed_rejected: int = 0
    """Pairs whose rejected side is not strictly one protocol object: allowed, and worth knowing."""
    bom: bool = False
    """The file begins with a byte order mark, which some readers refuse."""
    faults: list[Fault] = field(default_factory=list)
    fault_count: int = 0
    leaks: list[Leak] = field(default_factory=list)
    leak_count: int = 0
    leaked_rows: Counter[str] = field(default_factory=Counter)
    """Lines that hold text of a test task, by task."""

    @property
    def sound(self) -> bool:
        return not self.fault_count and not self.leak_count

    @property
    def pairs(self) -> int:
        return self.rows[RowFormat.PREFERENCE] + self.rows[RowFormat.PREFERENCE_TRL]

    def add_fault(self, line: int, text: str) -> None:
        self.fault_count += 1
        if len(self.faults) < MAX_LISTED:
            self.faults.append(Fault(line, text))

    def add_row(self, line: int, view: RowView) -> None:
        if view.format is not None:
            self.rows[view.format] += 1
            if self.last_format not in (None, view.format):
                self.add_fault(line, f"the format changes from {self.last_format} to {view.format}")
            self.last_format = view.format
        self.messages += view.messages
        self.trained += view.trained
        self.last_only += view.last_only
        self.malformed_rejected += view.malformed_rejected
        for fault in view.faults:
            self.add_fault(line, fault)

    def add_leaks(self, line: int, found: Mapping[Source, int]) -> None:
        self.leak_count += len(found)
        self.leaked_rows.update({source.task for source in found})
        for source, hits in sorted(found.items(), key=lambda item: (item[0].task, item[0].file, item[0].reference)):
            if len(self.leaks) < MAX_LISTED:
                self.leaks.append(Leak(line, source, hits))


def check_file(path: Path, against: LeakGuard | None = None) -> CheckReport:
    """Check every line of a JSONL file against the rules of trainers.formats; with `against`, look for leaks too.

    Raises:
        UsageError: the file cannot be read.
    """
    report = CheckReport()
    try:
        with path.open("rb") as file:
            for number, raw in _lines(file):
                _check_line(report, number, raw, against)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    if not report.rows and not report.fault_count:
        report.add_fault(1, "the file is empty")
    return report


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """(number, line), None for a line over MAX_LINE_BYTES."""
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) <= MAX_LINE_BYTES:
            yield number, raw
            continue
        while raw and not raw.endswith(b"\n"):
            raw = file.readline(MAX_LINE_BYTES)
        yield number, None


def _check_line(report: CheckReport, number: int, raw: bytes | None, against: LeakGuard | None) -> None:
    if raw is None:
        return report.add_fault(number, f"the line is longer than {MAX_LINE_BYTES} bytes")
    if number == 1 and raw.startswith(BOM):
        report.bom, raw = True, raw.removeprefix(BOM)
        if not raw:
            return None
    if not raw.strip():
        return report.add_fault(number, "a blank line")
    try:
        row = _decoded(raw)
    except ValueError as error:
        return report.add_fault(number, str(error))
    report.add_row(number, inspect_row(row))
    if against is not None and (found := against.search(row)):
        report.add_leaks(number, found)
    return None


class _RepeatedKey(ValueError):
    pass


def _decoded(raw: bytes) -> dict[str, Any]:
    """The object of a line; ValueError, in words fit for a user, where it is none."""
    try:
        row = _DECODER.decode(raw.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: byte {error.start + 1} of the line") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from error
    except _RepeatedKey:
        raise
    except (ValueError, RecursionError) as error:  # a number of too many digits, or too deep
        raise ValueError(f"not JSON that can be read: {error}") from error
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    if re.search(rb"\\u[dD][89a-fA-F]", raw):
        _refuse_half_surrogates(row)
    return row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        raise _RepeatedKey(f"the key {counts.most_common(1)[0][0][:100]!r} stands twice in one object")
    return made


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant)


def _refuse_half_surrogates(row: dict[str, Any]) -> None:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("a string holds half of a surrogate pair, which is not valid text") from error


_Window = tuple[str, ...]


class LeakGuard:
    """The fingerprints of test tasks: their editable files, the reference's, and the tests that they must pass.

    A fingerprint is a few consecutive lines (see `_windows`), blank ones left out and white space made even. Those
    that stand in the `others` too, the tasks that may be trained on, tell nothing and are none.
    """

    def __init__(self, suite: Suite, tasks: Iterable[Task], others: Iterable[Task] = ()) -> None:
        self._prints: dict[_Window, set[Source]] = {}
        elsewhere = dict(_files_of(suite, others))
        for task in tasks:
            for source, windows in _guarded(suite, task, elsewhere):
                for window in windows:
                    self._prints.setdefault(window, set()).add(source)
        sizes = {len(window) for window in self._prints}
        for tree, path in elsewhere.values():
            for window in _all_windows(_normal_lines(tree, path), sizes):
                self._prints.pop(window, None)
        self._sizes = {len(window) for window in self._prints}
        self._known = {line for window in self._prints for line in window}
        self._remembered: dict[int, frozenset[_Window]] = {}

    def __len__(self) -> int:
        return len(self._prints)

    def search(self, value: object) -> dict[Source, int]:
        """How many fingerprints of each source stand in the strings of a decoded row, tool calls decoded too."""
        found = set[_Window]().union(*(self._in_text(text) for text in _strings(value)))
        return Counter(source for window in found for source in self._prints[window])

    def _in_text(self, text: str) -> frozenset[_Window]:
        if len(text) < MIN_WHOLE_CHARS:
            return frozenset()
        key = hash(text)
        if key not in self._remembered:
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = frozenset(window for layer in _layers(text) for window in self._in_layer(layer))
        return self._remembered[key]

    def _in_layer(self, text: str) -> Iterator[_Window]:
        run: list[str] = []
        for raw in (*text.split("\n"), "\0"):
            line = " ".join(raw.split())
            if line in self._known:
                run.append(line)
            elif line and run:
                yield from (window for window in _all_windows(run, self._sizes) if window in self._prints)
                run = []


def leak_guard(name: str, mirror: Path | None = None) -> LeakGuard:
    """The guard of a suite: of its test split where `name` is a suite's, of all tasks where it is a suite file's.

    Raises:
        UsageError: what suites.base.load raises, or a suite without a test split.
    """
    suite = load(name, mirror)
    whole = suite.whole if isinstance(suite, SubsetSuite) else suite
    tasks = whole.tasks()
    guarded = {task.id for task in suite.tasks() if whole is not suite or suite.split_of(task) == "test"}
    if not guarded:
        raise UsageError(f"suite {suite.name} has no task to test on: give a suite file")
    return LeakGuard(
        whole, [task for task in tasks if task.id in guarded], [task for task in tasks if task.id not in guarded]
    )


def _guarded(suite: Suite, task: Task, elsewhere: Collection[str]) -> Iterator[tuple[Source, set[_Window]]]:
    """The fingerprints of the files that may be edited or are the task's tests, then those that only the repair has;
    without the files that others have too.
    """
    tests = {test.partition("::")[0] for test in task.expected_tests}
    before: set[_Window] = set()
    for path in task.tree.paths:
        if (task.may_edit(path) or path in tests) and task.tree.file(path).digest not in elsewhere:
            windows = _windows(_normal_lines(task.tree, path))
            before |= windows
            yield Source(task.id, path), windows
    if not task.tree.paths:  # a question
        lines = [" ".join(line.split()) for line in task.goal.split("\n") if line.strip()]
        yield Source(task.id, "question"), {tuple(lines), (f"User: {lines[0]}", *lines[1:])}
    repaired = suite.reference(task)
    if repaired is not None:
        for path in filter(task.may_edit, repaired.edits):
            yield Source(task.id, path, reference=True), _windows(_normal_lines(repaired, path)) - before


def _files_of(suite: Suite, tasks: Iterable[Task]) -> Iterator[tuple[str, tuple[Workspace, str]]]:
    """Every file of the tasks by its digest, before and after repair."""
    for task in tasks:
        for tree in (task.tree, suite.reference(task)):
            for path in tree.paths if tree else ():
                if tree:
                    yield tree.file(path).digest, (tree, path)


def _normal_lines(tree: Workspace, path: str) -> list[str]:
    """The lines of a file that are not blank, white space made even; none for a link, or a path that is no file."""
    if path not in tree or tree.file(path).mode is Mode.SYMLINK:
        return []
    lines = tree.file(path).content.decode(errors="replace").split("\n")
    return [line for raw in lines if (line := " ".join(raw.split()))]


def _all_windows(lines: list[str], sizes: Iterable[int]) -> Iterator[_Window]:
    for size in sizes:
        for start in range(len(lines) - size + 1):
            yield tuple(lines[start : start + size])


def _windows(lines: list[str]) -> set[_Window]:
    """The fingerprints of a file: from each line on the fewest lines that are enough, and the fewest at its end."""
    forward = (_shortest(lines[start : start + MIN_SHINGLE_CHARS]) for start in range(len(lines)))
    found = {window for window in (*forward, _shortest(lines[::-1])[::-1]) if window}
    return found or ({tuple(lines)} if sum(map(len, lines)) >= MIN_WHOLE_CHARS else set())


def _shortest(lines: list[str]) -> _Window:
    """The first lines, so many that they make a fingerprint; none where all of them are too few or too short."""
    chars = 0
    for count, line in enumerate(lines, 1):
        chars += len(line)
        if count >= SHINGLE_LINES and chars >= MIN_SHINGLE_CHARS:
            return tuple(lines[:count])
    return ()


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(item)


def _layers(text: str, depth: int = 2) -> Iterator[str]:
    """A text, and what it holds in JSON's escapes: a tool call's file content, for example."""
    yield text
    if not depth or not ("\\n" in text or '"tool_call"' in text):
        return
    try:
        inside: object = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        inside = [parse(text).args if '"tool_call"' in text else "", _ESCAPE.sub(_unescape, text)]
    for string in _strings(inside):
        if string != text:
            yield from _layers(string, depth - 1)


_ESCAPE = re.compile(r"\\([nrt\"\\/])")


def _unescape(match: re.Match[str]) -> str:
    return {"n": "\n", "r": "\r", "t": "\t"}.get(match[1], match[1])
