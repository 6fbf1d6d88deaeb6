"""How progress looks: a bar with the workers under it, or lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from harness.budget import Budget
from harness.progress_log import Figures
from harness.progress_workers import Activity, Workers

SHOWN_WORKERS = 8
STILL_S = 60.0
"""After so long without a line, one says what the workers do."""
_UNITS = (("d", 86400), ("h", 3600), ("min", 60))


def span(seconds: float) -> str:
    """A length of time in the unit that fits."""
    name, size = next(((name, size) for name, size in _UNITS if seconds >= 2 * size), ("s", 1))
    return f"{seconds / size:.1f} {name}" if size >= 3600 else f"{seconds / size:.0f} {name}"


def rate_words(done: int, total: int, seconds: float) -> str:
    """How fast units end, and when the last one will have."""
    if not done or seconds <= 0:
        return "no rate yet"
    rate = done / seconds
    speed = f"{rate:.2g}/s" if rate >= 0.1 else f"{rate * 60:.2g}/min"
    return f"{speed}, {span((total - done) / rate)} left"


def worker_words(rollout: str, step: int, doing: str, seconds: float) -> str:
    return f"{rollout} step {step} {doing}, {span(seconds)}"


def _words(active: Sequence[Activity]) -> list[str]:
    """A line per worker; of many, those that have been at it the longest."""
    now, more = time.monotonic(), len(active) - SHOWN_WORKERS
    shown = [worker_words(each.rollout, each.step, each.doing, now - each.since) for each in active[:SHOWN_WORKERS]]
    return [*shown, f"and {more} more"] if more > 0 else shown


class Pace:
    """Counts units, and says how fast they end."""

    def __init__(self, what: str, total: int, name: str, budget: Budget | None) -> None:
        self.what, self.total, self.name = what, total, name
        self._done = self._good = self._unscored = 0
        self._budget = budget
        self._began = time.monotonic()

    def begin(self) -> None:
        self._began = time.monotonic()

    def count(self, solved: bool | None) -> None:
        self._done += 1
        self._good += bool(solved)
        self._unscored += solved is None

    @property
    def figures(self) -> Figures:
        cost, tokens = (self._budget.cost_usd, self._budget.tokens) if self._budget else (0.0, 0)
        counts = {"done": self._done, "good": self._good, "unscored": self._unscored}
        return Figures(what=self.what, cost_usd=cost, tokens=tokens, **counts)

    @property
    def good_words(self) -> str:
        unscored = f", {self._unscored} unscored" if self._unscored else ""
        return f"{self._good} {self.name}{unscored}"

    @property
    def words(self) -> str:
        spent = time.monotonic() - self._began
        cost = f", {self._budget.cost_usd:.4f} USD" if self._budget and self._budget.cost_usd else ""
        return f"{span(spent)}, {rate_words(self._done, self.total, spent)}{cost}"


class Screen:
    """Shows nothing."""

    def start(self) -> None: ...
    def unit(self, line: str) -> None: ...
    def tick(self, active: Sequence[Activity]) -> None: ...
    def stop(self) -> None: ...


class LineScreen(Screen):
    """A line per unit, and one where none has ended for long.

    Args:
        every_s: at most one line in so many seconds.
        head: stands before each.
    """

    def __init__(self, pace: Pace, every_s: float = 0.0, head: str = "") -> None:
        self._pace, self._every_s, self._head = pace, every_s, head
        self._said = time.monotonic()

    def start(self) -> None:
        self._said = time.monotonic()

    def unit(self, line: str) -> None:
        if time.monotonic() - self._said >= self._every_s:
            self._say(line)

    def tick(self, active: Sequence[Activity]) -> None:
        if active and time.monotonic() - self._said >= max(STILL_S, self._every_s):
            self._say(f"now: {'; '.join(_words(active))}")

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        pace, done = self._pace, self._pace.figures.done
        head = f"{self._head}[{done}/{pace.total}] {pace.words}, {pace.good_words}"
        sys.stderr.write(f"{head}: {line}\n")
        sys.stderr.flush()


class _PaceColumn(ProgressColumn):
    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace

    def render(self, task: Task) -> Text:
        return Text(self._pace.words)


class BarScreen(Progress, Screen):
    """A bar; under it the last unit's line, and a line per worker."""

    def __init__(self, pace: Pace, workers: Workers) -> None:
        self._pace, self._workers, self._last = pace, workers, ""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _PaceColumn(pace))
        super().__init__(*columns, console=Console(stderr=True), refresh_per_second=2)
        self._unit = self.add_task(pace.good_words, total=pace.total)

    def unit(self, line: str) -> None:
        self._last = line
        self.update(self._unit, completed=self._pace.figures.done, description=self._pace.good_words)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        lines = [self._last] if self._last else []
        for line in (*lines, *(f"  {each}" for each in _words(self._workers.now))):
            yield Text(line, no_wrap=True, overflow="ellipsis")
