"""Policies that need no model: scripted (for tests), noop and replay (a recorded trace)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import RolloutEnd, UsageError
from harness.policy import Policy, PolicyInfo
from harness.records import Completion, Message, Sampling, StopReason, Task
from harness.trace_reader import read_traces
from tools.protocol import final_text


def turn_of(messages: Sequence[Message]) -> int:
    """How many times the policy has spoken in this conversation."""
    return sum(message.role == "assistant" for message in messages)


@dataclass(frozen=True)
class ScriptedPolicy:
    """Says the given texts in their order, whatever the answers; then the rollout ends as exhausted."""

    texts: tuple[str, ...]

    def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        turn = turn_of(messages)
        if turn >= len(self.texts):
            raise RolloutEnd(StopReason.EXHAUSTED)
        return Completion(text=self.texts[turn])


class AtOnce:
    """A source whose policies answer at once: there is nothing to give up."""

    def close(self) -> None:
        return None


@dataclass(frozen=True)
class NoopSource(AtOnce):
    """Gives a final answer at once, without a change."""

    info: PolicyInfo = PolicyInfo("noop", trusted=True)

    def policy(self, task: Task, rollout_index: int) -> Policy:
        return ScriptedPolicy((final_text("nothing was changed"),))


class ReplaySource(AtOnce):
    """Says again what recorded rollouts said, by task and rollout index."""

    def __init__(self, run: Path) -> None:
        self._run = run
        texts: dict[tuple[str, int], tuple[str, ...]] = {}
        policies: set[str] = set()
        for trace in read_traces(run):
            if trace.header.fork:
                continue
            texts[trace.header.task, trace.header.index] = tuple(step.completion.text for step in trace.steps)
            policies.add(trace.header.policy)
        self._texts: Mapping[tuple[str, int], tuple[str, ...]] = texts
        longest = max(map(len, texts.values()), default=1)
        oracle = any(name.partition(":")[0] == "reference" for name in policies)
        self.info = PolicyInfo("replay", model=",".join(sorted(policies)), oracle=oracle, default_max_iters=longest + 1)

    def policy(self, task: Task, rollout_index: int) -> Policy:
        try:
            return ScriptedPolicy(self._texts[task.id, rollout_index])
        except KeyError:
            raise UsageError(
                f"{self._run} has no rollout {rollout_index} of task {task.id}: "
                "replay the same suite, --limit and --rollouts"
            ) from None
