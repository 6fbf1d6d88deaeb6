"""Which tasks a round of rollouts is played on: seeded passes over all of them, or, with a curriculum, those that still
tell good rollouts from bad ones.

A group whose rollouts were all solved, or all not, has no signal: the advantages are 0. So a task whose last two groups
were like that rests for some rounds, then is tried again: the model is another one by then.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

GROUPS = 2
"""Groups in a row without signal after which a task rests."""
REST_ROUNDS = 8


class TaskOrder:
    """Deals tasks, round by round.

    Args:
        curriculum: tasks may rest; without it every task comes once in each pass.
    """

    def __init__(self, tasks: Sequence[str], seed: int, curriculum: bool) -> None:
        self._tasks, self._seed, self._curriculum = list(tasks), seed, curriculum
        self._round = self._passes = 0
        self._left: list[str] = []
        self._idle: dict[str, int] = {}
        """Groups without signal in a row."""
        self._until: dict[str, int] = {}
        """The round from which on a task that rests is dealt again."""

    @property
    def resting(self) -> list[str]:
        return [task for task in self._tasks if self._until.get(task, 0) > self._round]

    def deal(self, count: int) -> list[str]:
        """Different tasks for the next round; `count` is at most the number of tasks.

        Where too few are awake, those that have rested longest are taken.
        """
        self._round += 1
        dealt: list[str] = []
        again: list[str] = []
        for _ in range(2 * len(self._tasks)):
            if len(dealt) == count:
                break
            task = self._next()
            if task in dealt:  # of the next pass already
                again.append(task)
            elif self._until.get(task, 0) <= self._round:
                dealt.append(task)
        self._left += again
        tired = sorted((task for task in self._tasks if task not in dealt), key=lambda task: self._until.get(task, 0))
        return dealt + tired[: count - len(dealt)]

    def _next(self) -> str:
        if not self._left:
            self._passes += 1
            self._left = random.Random(f"{self._seed} {self._passes}").sample(self._tasks, len(self._tasks))
        return self._left.pop()

    def learn(self, task: str, scores: Sequence[float | None]) -> None:
        """What a group's rollouts scored; one without any score tells nothing."""
        known = {score for score in scores if score is not None}
        if not self._curriculum or not known:
            return
        self._idle[task] = self._idle.get(task, 0) + 1 if known in ({0.0}, {1.0}) else 0
        if self._idle[task] >= GROUPS:
            self._until[task] = self._round + 1 + REST_ROUNDS
            self._idle[task] = GROUPS - 1  # one more group without signal after it, and it rests again

    def state(self) -> dict[str, Any]:
        """As JSON, for a checkpoint."""
        return {
            "round": self._round,
            "passes": self._passes,
            "left": self._left,
            "idle": self._idle,
            "until": self._until,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._round, self._passes = int(state["round"]), int(state["passes"])
        self._left = [task for task in state["left"] if task in self._tasks]
        self._idle, self._until = dict(state["idle"]), dict(state["until"])
