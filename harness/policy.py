"""What a policy is: a function of messages and sampling. It holds no state of an episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.records import Completion, Message, Sampling, Task


class Policy(Protocol):
    """Gives the next assistant message.

    Raises:
        RolloutEnd: the conversation cannot go on (context full, content filter, budget, nothing left to say).
        InfrastructureError: the service failed, retries included.
        PolicyRefused: it would fail for every conversation (wrong key, unknown model).
    """

    def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion: ...


@dataclass(frozen=True)
class PolicyInfo:
    """What reports say about a policy."""

    name: str
    model: str = ""
    oracle: bool = False
    """It knows the answer: its results say nothing about a model."""
    trusted: bool = False
    """What it writes was not written by a model, so automatic choice may run it without a security boundary."""
    default_max_iters: int = 30
    engine: str = ""
    """What runs a local model: library, version, number format, device."""
    notices: tuple[str, ...] = ()
    """What is announced before a run, one line each."""


class PolicySource(Protocol):
    """Gives the policy of one rollout: most give always the same, an oracle one per task."""

    @property
    def info(self) -> PolicyInfo: ...
    def policy(self, task: Task, rollout_index: int) -> Policy: ...
    def close(self) -> None:
        """Give up what is under way; may be called more than once, from any thread."""
