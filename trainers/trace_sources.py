"""The trace logs that an extractor reads: found, held open, and gone through in one order, whatever theirs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from harness.errors import UsageError
from harness.records import Trace
from harness.run_files import RUN_FILE
from harness.trace_reader import TraceLog
from harness.trace_store import TRACES
from sandboxes.no_sandbox import NONE
from trainers.card import Source

PATHS_SUFFIX = ".paths"
"""Directories of such a name hold solving paths that an extractor made: they are no source of another one."""


class Entry(NamedTuple):
    """One rollout of the sources. Entries are gone through sorted."""

    task: str
    rollout_index: int
    rollout: str
    log: int
    """Number of its log."""
    suite: str
    split: str


def find_logs(places: Sequence[Path]) -> list[Path]:
    """The logs at each place: a log itself, or every `traces.jsonl` in a directory and below, sorted.

    Raises UsageError where a place has none.
    """
    found: dict[Path, Path] = {}
    for place in places:
        logs = [place] if place.is_file() else sorted(path for path in place.rglob(TRACES) if _is_log(path, place))
        if not logs:
            there = "has no" if place.is_dir() else "does not exist: there is no"
            raise UsageError(f"--trace-dir {place} {there} {TRACES}")
        for path in logs:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _is_log(path: Path, place: Path) -> bool:
    folders = path.relative_to(place).parts[:-1]
    return path.is_file() and not any(folder.endswith(PATHS_SUFFIX) for folder in folders)


class TraceSources:
    """Some logs; a context manager. Raises UsageError for a log that cannot be read."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.logs: list[TraceLog] = []
        try:
            for path in paths:
                self.logs.append(TraceLog(path))
            self.entries = sorted(self._entries())
        except BaseException:
            self.close()
            raise

    def _entries(self) -> Iterator[Entry]:
        for number, log in enumerate(self.logs):
            for rollout in log.rollouts:
                header = log.header(rollout)
                if header.sandbox == NONE:
                    raise UsageError(f"{log.path} holds answers to questions: repo-agent gsm8k makes rows of such")
                yield Entry(header.task, header.index, rollout, number, header.suite, header.split)

    def traces(self, entries: Iterable[Entry]) -> Iterator[tuple[int, Trace]]:
        """Each trace with the number of its log, one at a time."""
        for entry in entries:
            yield entry.log, self.logs[entry.log].trace(entry.rollout)

    @property
    def notices(self) -> list[str]:
        """What the user should be told of them."""
        return [
            f"{log.path} ends in a torn line of {log.torn_bytes} bytes, which is skipped"
            for log in self.logs
            if log.torn_bytes
        ]

    def about(self) -> tuple[Source, ...]:
        """What a card says of them; each file is read once more, for its hash."""
        return tuple(map(about_log, self.logs))

    def close(self) -> None:
        for log in self.logs:
            log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def about_log(log: TraceLog) -> Source:
    with log.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = file.tell()
    return Source(
        path=str(log.path),
        bytes=size,
        sha256=digest,
        rollouts=len(log.rollouts),
        torn_bytes=log.torn_bytes,
        run=_run_config(log.path.parent / RUN_FILE),
    )


def _run_config(path: Path) -> dict[str, Any] | None:
    """As it stands in the file: another version's configuration is worth knowing too."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return config if isinstance(config, dict) else None
