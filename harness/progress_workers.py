"""What each worker does now, taken from the events that its rollout records anyway."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from harness.records import Completion, Message, Step, StopReason
from harness.rollout import Recorder, RolloutEnded


class Doing(StrEnum):
    """What a worker waits for."""

    OPENING = "is being opened"
    MODEL = "asks the model"
    ACTING = "runs a tool or tests"
    SCORING = "is being scored"


@dataclass(frozen=True)
class Activity:
    """One worker. `step` counts from 1, `since` is a time of the monotonic clock."""

    rollout: str
    step: int
    doing: Doing
    since: float


class Workers:
    """The rollouts that are under way; safe to use from several threads."""

    def __init__(self) -> None:
        self._now: dict[str, Activity] = {}
        self._lock = threading.Lock()

    @property
    def now(self) -> list[Activity]:
        """The longest at what they do come first."""
        with self._lock:
            return sorted(self._now.values(), key=lambda activity: activity.since)

    def say(self, rollout: str, step: int, doing: Doing) -> None:
        activity = Activity(rollout, step, doing, time.monotonic())
        with self._lock:
            self._now[rollout] = activity

    @contextmanager
    def on(self, rollout: str) -> Iterator[None]:
        """A worker is on a rollout."""
        self.say(rollout, 1, Doing.OPENING)
        try:
            yield
        finally:
            with self._lock:
                self._now.pop(rollout, None)

    def watched(self, recorder: Recorder, rollout: str, steps: int, pending: bool) -> Recorder:
        """The recorder, with what it is told noted here too; the rollout has so many steps behind it already."""
        return _Watched(recorder, self, rollout, steps + 1, pending)


@dataclass
class _Watched:
    recorder: Recorder
    workers: Workers
    rollout: str
    step: int
    pending: bool

    def start(self, prompt: tuple[Message, ...]) -> None:
        self.recorder.start(prompt)
        self._now(Doing.ACTING if self.pending else Doing.MODEL)

    def completion(self, step_id: str, parent: str | None, completion: Completion) -> None:
        self.recorder.completion(step_id, parent, completion)
        self._now(Doing.ACTING)

    def outcome(self, step: Step) -> None:
        self.recorder.outcome(step)
        self.step += 1
        self._now(Doing.MODEL)

    def done(self, stop: StopReason) -> None:
        self.recorder.done(stop)
        self.step -= 1
        self._now(Doing.SCORING)

    def end(self, end: RolloutEnded) -> None:
        self.recorder.end(end)

    def _now(self, doing: Doing) -> None:
        self.workers.say(self.rollout, max(1, self.step), doing)
