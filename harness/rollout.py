"""The one loop there is: a policy and an environment, step by step, every event recorded as it happens."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from harness.environment import Environment, StepOutcome
from harness.errors import INFRASTRUCTURE, RolloutEnd
from harness.loops import Turn, in_loop
from harness.policy import Policy
from harness.records import Completion, Message, Sampling, Score, Step, StopReason


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


class Recorder(Protocol):
    """Where the events of one rollout go, in this order: start, then completion and outcome per step, then end."""

    def start(self, prompt: tuple[Message, ...]) -> None: ...
    def completion(self, step_id: str, parent: str | None, completion: Completion) -> None: ...
    def outcome(self, step: Step) -> None: ...
    def end(self, end: RolloutEnded) -> None: ...


@dataclass
class _Progress:
    messages: list[Message]
    turns: list[Turn] = field(default_factory=list)
    parent: str | None = None


def derived_seed(*parts: object) -> int:
    """A seed from what it belongs to: (run seed, task id, rollout index), then (that, step index). 31 bits."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:4]) >> 1


def rollout(
    policy: Policy,
    environment: Environment,
    limits: RolloutLimits,
    sampling: Sampling,
    recorder: Recorder,
    cancelled: threading.Event | None = None,
) -> RolloutEnded:
    """Play one episode to its end and score it.

    Args:
        sampling: its seed is the rollout's; each call gets one derived from it and from the step index.
        cancelled: when set, the rollout ends before its next step, unscored.

    Infrastructure's faults end it as unscored; PolicyRefused and bugs are raised.
    """
    stopped = cancelled or threading.Event()
    prompt = environment.start()
    recorder.start(prompt)
    try:
        stop = _play(policy, environment, limits, sampling, recorder, _Progress(list(prompt)), stopped.is_set)
        ended = _scored(environment, stop)
    except INFRASTRUCTURE as fault:
        ended = _failed(environment, fault, interrupted=stopped.is_set())
    recorder.end(ended)
    return ended


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


def _play(
    policy: Policy,
    environment: Environment,
    limits: RolloutLimits,
    sampling: Sampling,
    recorder: Recorder,
    progress: _Progress,
    cancelled: Callable[[], bool],
) -> StopReason:
    for index in range(limits.max_iters):
        if cancelled():
            return StopReason.INTERRUPTED
        seed = derived_seed(sampling.seed, index)
        try:
            completion = policy.complete(progress.messages, sampling.model_copy(update={"seed": seed}))
        except RolloutEnd as end:
            return end.reason
        step_id = f"s{index:04d}"
        recorder.completion(step_id, progress.parent, completion)
        outcome = environment.step(completion)
        loop = _advance(progress, completion, outcome)
        recorder.outcome(_step(step_id, progress.parent, completion, outcome, loop))
        progress.parent = step_id
        if outcome.stop:
            return outcome.stop
        if loop and limits.stop_on_loop:
            return StopReason.LOOP
    return StopReason.MAX_ITERS


def _advance(progress: _Progress, completion: Completion, outcome: StepOutcome) -> bool:
    """Add the turn to the conversation; True where it is part of a loop."""
    if outcome.observation is None:
        return False
    progress.messages.append(Message(role="assistant", content=completion.text))
    progress.messages.append(Message(role="user", content=outcome.observation))
    failed = outcome.result is not None and outcome.result.error is not None
    progress.turns.append(Turn(outcome.call.canonical, outcome.observation, failed))
    return in_loop(progress.turns)


def _step(step_id: str, parent: str | None, completion: Completion, outcome: StepOutcome, loop: bool) -> Step:
    return Step(
        id=step_id,
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
