"""Episodes as tokens: what a rollout's policy was given and sampled, as one sequence to train on.

The prompt of turn k + 1 is the prompt of turn k, the tokens that were sampled, and the tokens of what came between
(end of the turn, observation, the template's fixed text). Nothing sampled is ever tokenised again, so the sequence that
is trained on is the one that was sampled from, position by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.policies.local_engine import LocalPolicy
from harness.policy import Policy, PolicyInfo
from harness.records import Completion, FinishReason, Message, Sampling, Task


@dataclass(frozen=True)
class EpisodeTokens:
    """A training row. The last three have equal lengths."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    """From the first sampled token to the last one."""
    logprobs: tuple[float, ...]
    """As the sampler gave them; 0 where the token is not the model's."""
    env_mask: tuple[int, ...]
    """1 for the model's tokens, 0 for those of prompts and tool results."""

    def masked(self) -> EpisodeTokens:
        """The same with nothing to train on."""
        return EpisodeTokens(self.prompt_ids, self.completion_ids, self.logprobs, (0,) * len(self.env_mask))


@dataclass(frozen=True)
class Turn:
    """One call of the policy."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    cut_off: bool
    """Its token limit ended it."""


def episode_tokens(turns: Sequence[Turn], prompt_ids: Sequence[int], pad_id: int) -> EpisodeTokens:
    """The row of an episode.

    Args:
        prompt_ids: of its first turn, for an episode in which nothing was said.
        pad_id: the one masked token of such an episode: TRL takes no empty completion.
    """
    if not any(turn.token_ids for turn in turns):
        return EpisodeTokens(tuple(prompt_ids) or (pad_id,), (pad_id,), (0.0,), (0,))
    ids, logprobs, mask = list(turns[0].prompt_ids), [0.0] * len(turns[0].prompt_ids), [0] * len(turns[0].prompt_ids)
    for turn in turns:
        between = turn.prompt_ids[len(ids) :]
        if turn.prompt_ids[: len(ids)] != tuple(ids):
            raise ValueError("a turn's prompt does not go on where the turn before it ended")
        ids += (*between, *turn.token_ids)
        logprobs += [*[0.0] * len(between), *turn.logprobs]
        mask += [0] * len(between) + [1] * len(turn.token_ids)
    start = len(turns[0].prompt_ids)
    return EpisodeTokens(tuple(ids[:start]), tuple(ids[start:]), tuple(logprobs[start:]), tuple(mask[start:]))


@dataclass
class EpisodePolicy:
    """The policy of one rollout, which remembers its tokens: a call's messages are those of the call before, what was
    said then, and the answer to it.
    """

    local: LocalPolicy
    turns: list[Turn] = field(default_factory=list)
    prompt_ids: tuple[int, ...] = ()
    """Of the first call."""

    def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        """As `harness.policy.Policy`."""
        prompt = self._prompt(messages)
        completion = self.local.complete_ids(prompt, sampling)
        cut_off = completion.finish_reason is FinishReason.LENGTH
        self.turns.append(Turn(prompt, completion.token_ids or (), completion.logprobs or (), cut_off))
        return completion

    def _prompt(self, messages: Sequence[Message]) -> tuple[int, ...]:
        if not self.turns:
            self.prompt_ids = tuple(self.local.chat.prompt_ids(messages))
            return self.prompt_ids
        last = self.turns[-1]
        stopped = last.token_ids[-1:] == (self.local.chat.stop_id,)
        return (*last.prompt_ids, *last.token_ids, *self.local.chat.bridge_ids(messages, stopped))

    def tokens(self) -> EpisodeTokens:
        return episode_tokens(self.turns, self.prompt_ids, self.local.chat.stop_id)


class EpisodeSource:
    """Gives each rollout a policy of its own, and keeps them until they are collected."""

    def __init__(self, local: LocalPolicy, info: PolicyInfo) -> None:
        self._local, self.info = local, info
        self._policies: dict[tuple[str, int], EpisodePolicy] = {}

    def policy(self, task: Task, rollout_index: int) -> Policy:
        made = EpisodePolicy(self._local.for_task(task))
        self._policies[task.id, rollout_index] = made
        return made

    def collect(self, task: Task, rollout_index: int) -> EpisodePolicy:
        """The policy of a rollout that was played, once; one that has said nothing where the rollout did not begin."""
        return self._policies.pop((task.id, rollout_index), None) or EpisodePolicy(self._local.for_task(task))

    def close(self) -> None:
        """Give up the calls that are under way."""
        self._local.engine.close()
