"""Stored rollouts as paths through states, which is what values and pairs are made from."""

from __future__ import annotations

import hashlib

from harness.records import Step, StopReason, Trace
from trainers.values import Finished, Play, PolicyKey, Visit

CHARS_PER_TOKEN = 4
"""What a token is taken for where nobody counted."""


def states(trace: Trace) -> list[str]:
    """The state before each step, and the last one: a hash of task, messages and tree, the same on every machine."""
    found, tree = [], ""
    running = hashlib.blake2b(f"{trace.header.suite_version}\0{trace.header.task}".encode(), digest_size=16)
    for message in trace.header.prompt:
        running.update(f"\0{message.role}\0{message.content}".encode(errors="replace"))
    for step in (*trace.steps, None):
        at = running.copy()
        at.update(f"\0tree\0{tree}".encode())
        found.append(at.hexdigest())
        if step:
            running.update(f"\0{step.completion.text}\0{step.observation}".encode(errors="replace"))
            tree = step.digest
    return found


def is_malformed(step: Step) -> bool:
    return step.call.problem is not None


def policy_key(trace: Trace) -> PolicyKey:
    header = trace.header
    return PolicyKey(header.policy, header.model, header.sampling.temperature)


def play_of(trace: Trace, depth: int = 0) -> Play:
    """What became of a rollout from step number `depth` on. One that was cut off by no doing of its own is unscored."""
    cut_off = not trace.finished or trace.stop is StopReason.BUDGET
    score = None if cut_off else trace.grade()
    own = trace.steps[depth:]
    return Play(trace.header.rollout, score.value if score else None, len(own), sum(map(_tokens, own)))


def _tokens(step: Step) -> int:
    counted = step.completion.usage.completion_tokens
    return len(step.completion.text) // CHARS_PER_TOKEN if counted is None else counted


def finished_path(trace: Trace) -> Finished:
    """The whole path of a rollout; of a fork with the steps that it shares with its parent."""
    fork = trace.header.fork
    visits = tuple(
        Visit(state, step.completion.text, is_malformed(step), step.id, step.loop)
        for state, step in zip(states(trace), trace.steps, strict=False)
    )
    return Finished(
        task=trace.header.task,
        policy=policy_key(trace),
        visits=visits,
        play=play_of(trace),
        parent=fork.rollout if fork else None,
        inherited=trace.shared,
    )
