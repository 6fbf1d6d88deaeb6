"""Reads `progress.jsonl` while another process writes it, from where the last look ended."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from harness.progress_log import PROGRESS_FILE, Beat, Began, Figures, Over, Phase, ProgressEvent, Unit, decode_progress

LAST_LINES = 5


@dataclass
class PhaseNow:
    """A phase, as far as its log tells; times are seconds since the epoch."""

    phase: Phase
    heard: float
    figures: Figures
    beat: Beat | None = None


@dataclass
class Session:
    """The last process that took the run up."""

    began: Began
    heard: float
    over: Over | None = None
    phases: dict[str, PhaseNow] = field(default_factory=dict)
    """By what they play, the latest last."""
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))

    def take(self, event: ProgressEvent) -> None:
        self.heard = event.time
        match event:
            case Phase():
                self.phases.pop(event.what, None)
                self.phases[event.what] = PhaseNow(event, event.time, Figures(what=event.what))
            case Unit() | Beat() if event.what in self.phases:
                self._count(self.phases[event.what], event)
            case Over():
                self.over = event

    def _count(self, there: PhaseNow, event: Unit | Beat) -> None:
        there.heard, there.figures = event.time, event
        if isinstance(event, Beat):
            there.beat = event
        else:
            self.lines.append(event.line)


class ProgressReader:
    """A log that may grow; half a line at its end is read when it is whole."""

    def __init__(self, directory: Path) -> None:
        self._path, self._offset = directory / PROGRESS_FILE, 0
        self.session: Session | None = None
        """None where there is no log."""

    def read(self) -> Session | None:
        """Go on reading. Raises OSError."""
        if not self._path.is_file():
            return None
        with self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                self._take(decode_progress(line))
        return self.session

    def _take(self, event: ProgressEvent | None) -> None:
        if isinstance(event, Began):
            self.session = Session(event, event.time)
        elif event and self.session:
            self.session.take(event)
