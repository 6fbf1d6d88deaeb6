"""How a conversation becomes the tokens of a local model: the same way when it is played and when it is trained on.

A model's own chat template is used. For one without (a base model) there is `DEFAULT_TEMPLATE`, which needs no token
that the model does not have: each turn is `<|role|>`, a newline, the content, the tokenizer's end-of-sequence token, a
newline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError
from harness.records import Message

DEFAULT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
_PROBE = (Message(role="user", content="a"), Message(role="assistant", content="b"))


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
        return self._encode(action) + list(self.end_ids)

    def text(self, ids: Sequence[int]) -> str:
        """What was generated, without special tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _render(self, messages: Sequence[Message], prompt: bool) -> str:
        plain = [{"role": message.role, "content": message.content} for message in messages]
        return str(self.tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=prompt))

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))


def chat_format(tokenizer: Any) -> ChatFormat:
    """The format of a tokenizer; one without a template is given the default one.

    Raises:
        UsageError: it has no end-of-sequence token, or its template takes no system, user and assistant messages.
    """
    if tokenizer.eos_token is None:
        raise UsageError(
            f"the tokenizer of {tokenizer.name_or_path} has no end-of-sequence token: nothing ends a message"
        )
    lacking = tokenizer.chat_template is None
    if lacking:
        tokenizer.chat_template = DEFAULT_TEMPLATE
    return ChatFormat(tokenizer, lacking, _end_ids(tokenizer))


def _end_ids(tokenizer: Any) -> tuple[int, ...]:
    """What the template puts behind an assistant's last message, up to the first special token."""
    try:
        text = ChatFormat(tokenizer, False, ())._render(_PROBE, False)
    except Exception as error:  # templates raise jinja's own errors, of many kinds
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"the chat template of {tokenizer.name_or_path} cannot be used: {said}") from error
    ids = tokenizer.encode(text[text.rindex("b") + 1 :], add_special_tokens=False)
    special = next((place for place, each in enumerate(ids) if each in tokenizer.all_special_ids), None)
    return (tokenizer.eos_token_id,) if special is None else tuple(ids[: special + 1])
