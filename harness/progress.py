"""Progress on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def console() -> Console:
    """Where tables are printed: as wide as the terminal, of a fixed width in a file."""
    return Console(width=None if sys.stdout.isatty() else 140)


def notice(line: str) -> None:
    """Say something beside the progress."""
    print(f"repo-agent: {line}", file=sys.stderr, flush=True)


class ProgressView(Protocol):
    """Told of each unit of work that ends."""

    def done(self, line: str, solved: bool) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class _Lines:
    """One line per unit."""

    def __init__(self, total: int, good: str) -> None:
        self._good = good
        self._total, self._count, self._solved, self._began = total, 0, 0, time.monotonic()
        self._lock = threading.Lock()

    def done(self, line: str, solved: bool) -> None:
        with self._lock:
            self._count += 1
            self._solved += solved
            spent = time.monotonic() - self._began
            left = spent / self._count * (self._total - self._count)
            rate = f"{self._count / spent:.2g}/s, {left:.0f} s left" if spent else "at once"
            head = f"[{self._count}/{self._total}] {spent:.0f} s, {rate}, {self._solved} {self._good}:"
            print(f"{head} {line}", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class _Bar:
    """A bar with the last unit's line beside it."""

    def __init__(self, total: int, good: str) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(
            *columns,
            TimeRemainingColumn(),
            TextColumn("{task.fields[last]}", markup=False),
            console=Console(stderr=True),
        )
        self._unit = self._progress.add_task(f"0 {good}", total=total, last="")
        self._solved, self._good = 0, good

    def done(self, line: str, solved: bool) -> None:
        self._solved += solved
        self._progress.update(self._unit, advance=1, description=f"{self._solved} {self._good}", last=line)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


def progress_view(total: int, good: str = "solved") -> ProgressView:
    """A bar where standard error is a terminal. `good` is what a unit is called that ended well."""
    return _Bar(total, good) if sys.stderr.isatty() else _Lines(total, good)
