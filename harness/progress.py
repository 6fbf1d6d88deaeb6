"""Progress of a run: a bar on a terminal, lines elsewhere, and a log in the run directory (harness.progress_log).

with ProgressLog(directory, notice) as log, progress_view(len(jobs), log=log, budget=budget) as progress:
    Run(..., done, progress.workers).play(jobs, workers)
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console

from harness.budget import Budget
from harness.progress_log import MOST_WORKERS, Beat, Phase, ProgressLog, Unit, WorkerNow
from harness.progress_screens import BarScreen, LineScreen, Pace, Screen
from harness.progress_workers import Workers

BEAT_S, SOON_S = 5.0, 2.0
"""Between two entries of what the workers do, the second where a unit has ended since."""
TICK_S, SELDOM_S = 1.0, 30.0


def console() -> Console:
    """Where tables are printed: as wide as the terminal, of a fixed width in a file."""
    return Console(width=None if sys.stdout.isatty() else 140)


def notice(line: str) -> None:
    """Say something beside the progress."""
    print(f"repo-agent: {line}", file=sys.stderr, flush=True)


class ProgressView:
    """Told of each unit of work that ends; a context manager. Safe to use from several threads."""

    def __init__(
        self, pace: Pace, screen: Screen, workers: Workers, log: ProgressLog | None, before: tuple[int, int]
    ) -> None:
        self.workers = workers
        """To be given to what plays the units (harness.run.Run)."""
        self._pace, self._screen, self._log, self._before = pace, screen, log, before
        self._lock, self._over, self._beaten = threading.Lock(), threading.Event(), 0.0
        self._ticker = threading.Thread(target=self._beats, name="progress", daemon=True)

    def done(self, line: str, solved: bool | None) -> None:
        """A unit is over; `solved` is None where it has no score."""
        with self._lock:
            self._pace.count(solved)
            self._screen.unit(line)
            if self._log:
                self._log.write(Unit(time=time.time(), line=line, **vars(self._pace.figures)))
                self._beat(self._log, SOON_S)

    def _beats(self) -> None:
        while not self._over.wait(TICK_S):
            with self._lock:
                self._screen.tick(self.workers.now)
                if self._log:
                    self._beat(self._log, BEAT_S)

    def _beat(self, log: ProgressLog, after_s: float) -> None:
        now, active = time.monotonic(), self.workers.now
        if now - self._beaten < after_s:
            return
        self._beaten = now
        doing = tuple(
            WorkerNow(rollout=each.rollout, step=each.step, doing=each.doing, seconds=round(now - each.since, 1))
            for each in active[:MOST_WORKERS]
        )
        log.write(Beat(time=time.time(), workers=doing, busy=len(active), **vars(self._pace.figures)))

    def __enter__(self) -> Self:
        self._pace.begin()
        if self._log:
            pace, (before, good) = self._pace, self._before
            about = {"what": pace.what, "good": pace.name, "total": pace.total}
            self._log.write(Phase.model_validate({"time": time.time(), "before": before, "before_good": good, **about}))
        self._screen.start()
        self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._ticker.join()
        self._screen.stop()


def progress_view(
    total: int,
    good: str = "solved",
    what: str = "rollouts",
    log: ProgressLog | None = None,
    budget: Budget | None = None,
    before: tuple[int, int] = (0, 0),
    workers: Workers | None = None,
    screen: Callable[[Pace], Screen] | None = None,
) -> ProgressView:
    """Progress on standard error: a bar on a terminal, else lines.

    Args:
        good: what a unit is called that ended well.
        what: what the units are.
        budget: counts what the run costs.
        before: units that were over before, and how many of them had ended well: they are not in `total`.
        workers: whose activity is shown; the view's own where the caller has none.
        screen: what is shown instead.
    """
    pace, workers = Pace(what, total, good, budget), workers or Workers()
    if screen is not None:
        return ProgressView(pace, screen(pace), workers, log, before)
    shown = BarScreen(pace, workers) if sys.stderr.isatty() else LineScreen(pace)
    return ProgressView(pace, shown, workers, log, before)


def seldom(pace: Pace) -> Screen:
    """For what goes on beside another view: nothing on a terminal, whose bar is taken, else a line now and then."""
    return Screen() if sys.stderr.isatty() else LineScreen(pace, SELDOM_S, f"{pace.what} ")


def unseen(pace: Pace) -> Screen:
    """For what says its own lines where there is no terminal."""
    return Screen()
