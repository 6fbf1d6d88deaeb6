"""The one loop there is: a policy and an environment, step by step, every event recorded as it happens."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from harness.environment import Environment, StepOutcome
from harness.errors import INFRASTRUCTURE, RolloutEnd
from harness.loops import Turn, in_loop
from harness.policy import Policy
from harness.records import Completion, Message, Sampling, Score, Step, StopReason, Trace


@dataclass(frozen=True)
class RolloutLimits:
    """When a rollout ends without a final answer."""

    max_iters: int
    stop_on_loop: bool = False


@dataclass(frozen=True)
class RolloutEnded:
    """How a rollout ended."""

    stop: StopReason
    score: Score
    error: str = ""
    patch: str = ""
    score_seconds: float = 0.0


@dataclass(frozen=True)
class Past:
    """What a rollout has behind it when it is taken up: after a crash, or as a fork of another one."""

    steps: tuple[Step, ...] = ()
    pending: Completion | None = None
    """Said after those steps, and not carried out yet."""
    stop: StopReason | None = None
    """The agent is done: only the score is missing."""


class Recorder(Protocol):
    """Where the events of one rollout go: start, then completion and outcome per step, then done and end.

    An end can come without a done: the agent was cut off.
    """

    def start(self, prompt: tuple[Message, ...]) -> None: ...
    def completion(self, step_id: str, parent: str | None, completion: Completion) -> None: ...
    def outcome(self, step: Step) -> None: ...
    def done(self, stop: StopReason) -> None: ...
    def end(self, end: RolloutEnded) -> None: ...


def derived_seed(*parts: object) -> int:
    """A seed from what it belongs to: (run seed, task id, rollout index), then (that, step index). 31 bits."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:4]) >> 1


def step_id(index: int) -> str:
    """The id of a rollout's step, from 0; a fork goes on counting where it branched off."""
    return f"s{index:04d}"


def rollout(
    policy: Policy,
    environment: Environment,
    limits: RolloutLimits,
    sampling: Sampling,
    recorder: Recorder,
    cancelled: threading.Event | None = None,
    past: Past | None = None,
) -> RolloutEnded:
    """Play one episode to its end and score it.

    Args:
        sampling: its seed is the rollout's; each call gets one derived from it and from the step index.
        cancelled: when set, the rollout ends before its next step, unscored.
        past: what was played before: it is gone through again, without a call of the policy and without test runs.

    Infrastructure's faults end it as unscored; PolicyRefused, Diverged (of the past) and bugs are raised.
    """
    stopped, past = cancelled or threading.Event(), past or Past()
    episode = _Episode(environment, limits, recorder, list(environment.start()))
    recorder.start(tuple(episode.messages))
    try:
        stop = episode.follow(past.steps)
        stop = past.stop or stop or _play(policy, episode, sampling, past.pending, stopped)
        if stop is not StopReason.INTERRUPTED:
            recorder.done(stop)
        ended = _scored(environment, stop)
    except INFRASTRUCTURE as fault:
        ended = _failed(environment, fault, interrupted=stopped.is_set())
    recorder.end(ended)
    return ended


def draw(policy: Policy, path: Trace, sampling: Sampling, recorder: Recorder) -> None:
    """Ask for the next message after a stored path, and record it without carrying it out."""
    recorder.start(path.header.prompt)
    depth = len(path.steps)
    try:
        seed = derived_seed(sampling.seed, depth)
        completion = policy.complete(path.conversation(), sampling.model_copy(update={"seed": seed}))
    except RolloutEnd as end:
        recorder.end(RolloutEnded(end.reason, Score(value=None, why="there was nothing to draw")))
    except INFRASTRUCTURE as fault:
        error = f"{type(fault).__name__}: {fault}"
        recorder.end(RolloutEnded(StopReason.ERROR, Score(value=None, why=error), error))
    else:
        recorder.completion(step_id(depth), path.steps[-1].id if depth else None, completion)


def _play(
    policy: Policy, episode: _Episode, sampling: Sampling, pending: Completion | None, cancelled: threading.Event
) -> StopReason:
    while len(episode.turns) < episode.limits.max_iters:
        if cancelled.is_set():
            return StopReason.INTERRUPTED
        if pending is None:
            seed = derived_seed(sampling.seed, len(episode.turns))
            try:
                completion = policy.complete(episode.messages, sampling.model_copy(update={"seed": seed}))
            except RolloutEnd as end:
                return end.reason
            episode.say(completion)
        else:
            completion, pending = pending, None
        stop = episode.act(completion)
        if stop:
            return stop
    return StopReason.MAX_ITERS


def _scored(environment: Environment, stop: StopReason) -> RolloutEnded:
    started = time.monotonic()
    score = Score(value=None, why="interrupted") if stop is StopReason.INTERRUPTED else environment.score()
    return RolloutEnded(stop, score, "", environment.patch(), time.monotonic() - started)


def _failed(environment: Environment, fault: Exception, interrupted: bool) -> RolloutEnded:
    """A fault that the user's own interruption brought about (a sandbox taken away) is no error."""
    if interrupted:
        return RolloutEnded(StopReason.INTERRUPTED, Score(value=None, why="interrupted"), "", environment.patch())
    error = f"{type(fault).__name__}: {fault}"
    return RolloutEnded(StopReason.ERROR, Score(value=None, why=error), error, environment.patch())


@dataclass
class _Episode:
    """The conversation as it grows."""

    environment: Environment
    limits: RolloutLimits
    recorder: Recorder
    messages: list[Message]
    turns: list[Turn] = field(default_factory=list)
    parent: str | None = None

    @property
    def next_id(self) -> str:
        return step_id(len(self.turns))

    def follow(self, steps: Sequence[Step]) -> StopReason | None:
        """Go through recorded steps again; why the last of them ended the rollout, if it did."""
        stop: StopReason | None = None
        for step in steps:
            stop = self._advance(step.completion, self.environment.follow(step))[1]
            self.parent = step.id
        return stop

    def say(self, completion: Completion) -> None:
        self.recorder.completion(self.next_id, self.parent, completion)

    def act(self, completion: Completion) -> StopReason | None:
        """Carry out what was said."""
        outcome, step = self.environment.step(completion), self.next_id
        loop, stop = self._advance(completion, outcome)
        self.recorder.outcome(_step(step, self.parent, completion, outcome, loop))
        self.parent = step
        return stop

    def _advance(self, completion: Completion, outcome: StepOutcome) -> tuple[bool, StopReason | None]:
        """Add the turn to the conversation: whether it is part of a loop, and whether it ends the rollout."""
        failed = outcome.result is not None and outcome.result.error is not None
        self.turns.append(Turn(outcome.call.canonical, outcome.observation or "", failed))
        self.messages.append(Message(role="assistant", content=completion.text))
        if outcome.observation is None:
            return False, outcome.stop
        self.messages.append(Message(role="user", content=outcome.observation))
        loop = in_loop(self.turns)
        return loop, outcome.stop or (StopReason.LOOP if loop and self.limits.stop_on_loop else None)


def _step(name: str, parent: str | None, completion: Completion, outcome: StepOutcome, loop: bool) -> Step:
    return Step(
        id=name,
        parent=parent,
        completion=completion,
        call=outcome.call,
        error=outcome.result.error if outcome.result else None,
        truncated=outcome.result is not None and outcome.result.truncated,
        observation=outcome.observation,
        report=outcome.report,
        digest=outcome.digest,
        loop=loop,
        tool_seconds=outcome.tool_seconds,
        test_seconds=outcome.test_seconds,
    )
