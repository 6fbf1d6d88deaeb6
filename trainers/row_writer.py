"""SFT rows as bytes, fast: each message of a rollout is encoded once, however many rows repeat it.

A row is byte for byte `json.dumps(row, ensure_ascii=False, separators=(",", ":"))` of what `trainers.formats` makes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from json.encoder import encode_basestring
from typing import NamedTuple

from harness.records import Message, Trace
from harness.redaction import MASK
from tools.protocol import final_text
from trainers.formats import Target, sft_row
from trainers.token_counts import TokenCounter

_KEPT_CONVERSATIONS = 4
_HEADS = {role: f'{{"role":"{role}","content":'.encode() for role in ("system", "user", "assistant")}
_WEIGHTS = (b',"weight":0}', b',"weight":1}')


class Encoded(NamedTuple):
    """One message, encoded, and what is known of the conversation up to and with it."""

    body: bytes
    """Its JSON object without the closing brace."""
    assistant: bool
    digest: bytes
    """Of all messages so far, 16 bytes."""
    tokens: int
    """Of all messages so far."""
    sound: bool
    """No message so far breaks a rule of the formats."""


_NOTHING = Encoded(b"", False, b"", 0, True)


@dataclass(frozen=True)
class Conversation:
    """The messages of a rollout: those of the prompt, then for each step the assistant's and its answer."""

    messages: tuple[Encoded, ...]
    prompt: int
    """How many messages the prompt has."""

    def of_step(self, index: int) -> int:
        """The position of a step's assistant message."""
        return self.prompt + 2 * index


class ConversationEncoder:
    """Encodes the conversations of one extraction; what a fork shares with its parent is not encoded again."""

    def __init__(self, counter: TokenCounter) -> None:
        self._counter = counter
        self._kept: OrderedDict[tuple[int, str], Conversation] = OrderedDict()

    def encode(self, trace: Trace, log: int) -> Conversation:
        """`log`: number of the log that the trace is from; ids of rollouts are unique within one."""
        prompt = trace.header.prompt
        messages = list(self._shared(trace, log))
        if not messages:
            sound = _is_sound(prompt)
            for message in prompt:
                self._add(messages, message.role, message.content, sound)
        for index in range((len(messages) - len(prompt)) // 2, len(trace.steps)):
            step = trace.steps[index]
            self._add(messages, "assistant", step.completion.text)
            if step.observation is not None or index < len(trace.steps) - 1:
                self._add(messages, "user", step.observation or "")
        made = Conversation(tuple(messages), len(prompt))
        self._kept[log, trace.header.rollout] = made
        if len(self._kept) > _KEPT_CONVERSATIONS:
            self._kept.popitem(last=False)
        return made

    def _shared(self, trace: Trace, log: int) -> Sequence[Encoded]:
        fork = trace.header.fork
        if not fork or (log, fork.rollout) not in self._kept:
            return ()
        self._kept.move_to_end((log, fork.rollout))
        parent = self._kept[log, fork.rollout]
        end = parent.of_step(trace.shared)
        return parent.messages[:end] if len(parent.messages) >= end else ()

    def _add(self, messages: list[Encoded], role: str, content: str, sound: bool = True) -> None:
        before = messages[-1] if messages else _NOTHING
        body = _HEADS[role] + encode_basestring(content).encode()
        digest = blake2b(before.digest + body, digest_size=16).digest()
        good = before.sound and sound and bool(content) and not content.isspace() and MASK not in content
        messages.append(Encoded(body, role == "assistant", digest, before.tokens + self._counter(content), good))


def _is_sound(prompt: Sequence[Message]) -> bool:
    try:
        sft_row(prompt, final_text("done"), Target.TRL)
    except ValueError:
        return False
    return True


def step_lines(conversation: Conversation, steps: Iterable[int], target: Target) -> Iterator[bytes]:
    """The rows of some steps, by index in rising order: see trainers.formats.sft_row."""
    context, done = bytearray(), 0
    for index in steps:
        at = conversation.of_step(index)
        for message in conversation.messages[done:at]:
            context += b"," if done else b""
            context += _closed(message, False, target)
            done += 1
        action = _closed(conversation.messages[at], True, target)
        if target is Target.TRL:
            yield b"".join((b'{"prompt":[', context, b'],"completion":[', action, b"]}\n"))
        else:
            yield b"".join((b'{"messages":[', context, b",", action, b"]}\n"))


def trajectory_line(conversation: Conversation, trained: Sequence[bool], target: Target) -> bytes:
    """The row of the first `len(trained)` steps: see trainers.formats.trajectory_row."""
    chosen = {conversation.of_step(index) for index, flag in enumerate(trained) if flag}
    messages = conversation.messages[: conversation.of_step(len(trained) - 1) + 1]
    parts = [_closed(message, at in chosen, target) for at, message in enumerate(messages)]
    return b"".join((b'{"messages":[', b",".join(parts), b"]}\n"))


def _closed(message: Encoded, trained: bool, target: Target) -> bytes:
    return message.body + (_WEIGHTS[trained] if message.assistant and target is not Target.TRL else b"}")
