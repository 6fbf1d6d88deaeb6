"""How a conversation becomes the tokens of a local model: the same way when it is played and when it is trained on.

A model's own chat template is used. For one without (a base model) there is `DEFAULT_TEMPLATE`, which needs no token
that the model does not have: each turn is `<|role|>`, a newline, the content, the tokenizer's end-of-sequence token, a
newline.

A message's content is text and nothing else: where it spells a special token (`<|im_end|>` in a file that is read), it
becomes tokens of its letters, so that no content ends a turn or begins another one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.errors import UsageError
from harness.records import Message

DEFAULT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
_ANSWER = "the answer"
_PROBE = (Message(role="user", content="a question"), Message(role="assistant", content=_ANSWER))
_ROLLOUT = (Message(role="system", content="a prompt"), *_PROBE, Message(role="user", content="a result"))
_CUT, _MARK = "\ufdd0", "\ufdd1"
"""Where the name of a special token is cut in two, and a message's place. Unicode keeps these out of texts."""
_TALK = (
    *_ROLLOUT[:2],
    Message(role="assistant", content="<think>\nso\n</think>\n\none answer"),
    Message(role="user", content="a result"),
    Message(role="assistant", content="another answer"),
    Message(role="user", content="another result"),
)


@dataclass(frozen=True)
class ChatFormat:
    """A tokenizer of transformers with a chat template."""

    tokenizer: Any
    default_template: bool
    """The tokenizer had none of its own."""
    end_ids: tuple[int, ...]
    """The tokens that end an assistant turn; the last of them is special, and ends generation."""

    @property
    def stop_id(self) -> int:
        return self.end_ids[-1]

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The tokens of a conversation up to where the assistant begins to speak."""
        return self._encode(self._render(messages, True))

    def action_ids(self, action: str) -> list[int]:
        """The tokens of an assistant's message with the end of its turn: what is trained, and what is generated."""
        return self._encode(self._inert(action)) + list(self.end_ids)

    def bridge_ids(self, messages: Sequence[Message], stopped: bool) -> list[int]:
        """The tokens from the end of an assistant's message to where it speaks again: what was sampled stays as it is.

        Args:
            messages: a conversation that ends with an assistant's message and the answer to it.
            stopped: the message ended with the token that ends its turn; else the bridge begins with that end.
        """
        answer = Message(role="user", content=messages[-1].content.replace(_MARK, "\ufffd"))
        talk = [*messages[:-2], Message(role="assistant", content=_MARK), answer]
        ids = self._encode(self._render(talk, True).rpartition(_MARK)[2])
        ends = stopped and tuple(ids[: len(self.end_ids)]) == self.end_ids
        return ids[len(self.end_ids) :] if ends else ids

    def text(self, ids: Sequence[int]) -> str:
        """What was generated, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _render(self, messages: Sequence[Message], prompt: bool) -> str:
        plain = [{"role": message.role, "content": self._inert(message.content)} for message in messages]
        return str(self.tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=prompt))

    def _inert(self, text: str) -> str:
        """The text with the names of special tokens cut: in pieces they are letters."""
        text = text.replace(_CUT, "\ufffd")
        while self._special and self._special.search(text):
            text = self._special.sub(lambda found: found[0][0] + _CUT + found[0][1:], text)
        return text

    @cached_property
    def _special(self) -> re.Pattern[str] | None:
        added = self.tokenizer.added_tokens_decoder.values()
        names = {*self.tokenizer.all_special_tokens, *(token.content for token in added if token.special)}
        return re.compile("|".join(re.escape(name) for name in sorted(names) if len(name) > 1)) if names else None

    def _encode(self, text: str) -> list[int]:
        return [each for part in text.split(_CUT) for each in self.tokenizer.encode(part, add_special_tokens=False)]


@dataclass(frozen=True)
class RawFormat(ChatFormat):
    """The same tokenizer without a chat template: a prompt is one text that the model goes on with, up to its
    end-of-sequence token.
    """

    @property
    def stop_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Of one message: anything else is no raw prompt."""
        (only,) = messages
        return self._encode(self._inert(only.content))

    def action_ids(self, action: str) -> list[int]:
        return [*self._encode(self._inert(action)), self.stop_id]


def format_for(chat: ChatFormat, raw: bool) -> ChatFormat:
    """The format in which a task's prompt is put (see `harness.records.Task.raw_prompt`)."""
    return RawFormat(chat.tokenizer, chat.default_template, chat.end_ids) if raw else chat


def chat_format(tokenizer: Any) -> ChatFormat:
    """The format of a tokenizer; one without a template is given the default one.

    Raises:
        UsageError: it has no end-of-sequence token, or its template takes no user and assistant messages.
    """
    if tokenizer.eos_token is None:
        raise UsageError(
            f"the tokenizer of {tokenizer.name_or_path} has no end-of-sequence token: nothing ends a message"
        )
    lacking = tokenizer.chat_template is None
    if lacking:
        tokenizer.chat_template = DEFAULT_TEMPLATE
    return ChatFormat(tokenizer, lacking, _end_ids(tokenizer))


def check_playable(chat: ChatFormat) -> None:
    """Raises UsageError for a template that takes no conversation of a rollout, which begins with a system message."""
    _rendered(chat.tokenizer, _ROLLOUT)


def check_bridgeable(chat: ChatFormat) -> None:
    """Raises UsageError for a template that rewrites earlier messages: a rollout's turns are then no one sequence."""
    check_playable(chat)
    for place in (2, 4):
        so_far = chat._render(_TALK[:place], True) + _TALK[place].content
        if not chat._render(_TALK[: place + 2], True).startswith(so_far):
            raise UsageError(
                f"the chat template of {chat.tokenizer.name_or_path} rewrites earlier messages (it may leave out their "
                "thoughts): episodes of several turns cannot be trained on as they were sampled"
            )


def _rendered(tokenizer: Any, messages: Sequence[Message]) -> str:
    try:
        return ChatFormat(tokenizer, False, ())._render(messages, False)
    except Exception as error:  # templates raise jinja's own errors, of many kinds
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"the chat template of {tokenizer.name_or_path} cannot be used: {said}") from error


def _end_ids(tokenizer: Any) -> tuple[int, ...]:
    """What the template puts behind an assistant's last message, up to the first special token."""
    _, answered, end = _rendered(tokenizer, _PROBE).rpartition(_ANSWER)
    if not answered:
        raise UsageError(f"the chat template of {tokenizer.name_or_path} cannot be used: it leaves out answers")
    ids = tokenizer.encode(end, add_special_tokens=False)
    special = next((place for place, each in enumerate(ids) if each in tokenizer.all_special_ids), None)
    return (tokenizer.eos_token_id,) if special is None else tuple(ids[: special + 1])
