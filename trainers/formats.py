"""The row formats of training data, and the rules that every row keeps.

Sources: docs.together.ai/docs/fine-tuning/data-preparation and …/preference-tuning; OpenAI's guides to supervised
fine-tuning and direct preference optimization; huggingface.co/docs/trl/dataset_formats. docs/data.md shows each format.

The rules stand once, in `inspect_row`: what a function here makes is held against them (ValueError), and
`trainers.data_check` holds files against them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from harness.records import Message
from tools.protocol import parse


class Target(StrEnum):
    """Who trains on the file."""

    TOGETHER = "together"
    OPENAI = "openai"
    TRL = "trl"


class Granularity(StrEnum):
    """What one row of SFT data is."""

    STEP = "step"
    """One action; everything before it is context."""
    TRAJECTORY = "trajectory"
    """A whole conversation."""


class RowFormat(StrEnum):
    """What a row can be, by its columns."""

    SFT_WEIGHTED = "sft-weighted"
    """Together and OpenAI: `messages`, of which the assistant's carry weights. Steps and trajectories."""
    SFT_PROMPT_COMPLETION = "sft-prompt-completion"
    """TRL, a step: `prompt` and `completion`."""
    SFT_QUESTION = "sft-question"
    """The same with `question_id`: the completion answers a question, in whatever form."""
    SFT_TEXT = "sft-text"
    """`prompt` and `completion` are strings: the model goes on with the prompt, no chat template is applied."""
    SFT_MESSAGES = "sft-messages"
    """TRL, a trajectory: `messages` without weights, every assistant message is trained."""
    PREFERENCE = "preference"
    """Together and OpenAI: `input`, `preferred_output`, `non_preferred_output`."""
    PREFERENCE_TRL = "preference-trl"
    """TRL: `prompt`, `chosen`, `rejected`."""


_ROLES = ("system", "user", "assistant")
_PAIR = ("prompt", "chosen", "rejected")
_COLUMNS: dict[RowFormat, tuple[str, ...]] = {
    RowFormat.SFT_WEIGHTED: ("messages",),
    RowFormat.SFT_MESSAGES: ("messages",),
    RowFormat.SFT_PROMPT_COMPLETION: ("prompt", "completion"),
    RowFormat.SFT_QUESTION: ("prompt", "completion"),
    RowFormat.SFT_TEXT: ("prompt", "completion"),
    RowFormat.PREFERENCE: ("input", "preferred_output", "non_preferred_output"),
    RowFormat.PREFERENCE_TRL: _PAIR,
}
_NO_EXTRAS = (RowFormat.SFT_WEIGHTED, RowFormat.PREFERENCE)
# fmt: off
READ_BY_TRL = frozenset((
    "messages", "conversations", "prompt", "completion", "chosen", "rejected", "text", "label", "labels",
    "image", "images", "tools", "input_ids", "attention_mask", "position_ids", "assistant_masks",
    "completion_mask", "seq_lengths", "pixel_values", "chat_template_kwargs", "prompt_ids", "chosen_ids",
    "rejected_ids", "completion_ids", "ref_chosen_logps", "ref_rejected_logps"
))
# fmt: on
"""Columns that TRL's trainers read: no column of ours may have such a name."""


@dataclass(frozen=True)
class RowView:
    """What one decoded row is: its format (None where its columns fit none), its faults, and what is counted."""

    format: RowFormat | None = None
    faults: tuple[str, ...] = ()
    messages: int = 0
    trained: int = 0
    """Messages that a trainer learns to write: both sides of a pair are one."""
    last_only: bool = False
    """Only the last message is trained, as in a step row."""
    malformed_rejected: bool = False


def sft_row(prefix: Sequence[Message], action: str, target: Target) -> dict[str, Any]:
    """One step: `action` is trained, `prefix` is its context.

    Together and OpenAI: {"messages": […]}, the last message with weight 1 and every earlier assistant message with 0.
    TRL: {"prompt": […], "completion": [one message]}.

    Raises:
        ValueError: the row breaks a rule; `action` is not strictly one protocol object, for example.
    """
    if target is Target.TRL:
        return _sound({"prompt": _plain(prefix), "completion": _answer(action)})
    last: dict[str, Any] = {"role": "assistant", "content": action, "weight": 1}
    return _sound({"messages": [*_weighted(prefix, ()), last]})


def trajectory_row(messages: Sequence[Message], trained: Sequence[bool], target: Target) -> dict[str, Any]:
    """A whole conversation, up to its last assistant message. `trained`: one flag per assistant message, in order.

    A message that is not strictly one protocol object is never trained, whatever its flag says. Together and OpenAI:
    {"messages": […]} with a weight on each assistant message. TRL: {"messages": […]}, for `assistant_only_loss`.

    Raises:
        ValueError: the row breaks a rule; for TRL also where a message may not be trained, which TRL cannot express.
    """
    spoken = [index for index, message in enumerate(messages) if message.role == "assistant"]
    if len(spoken) != len(trained):
        raise ValueError(f"{len(trained)} flags for {len(spoken)} assistant messages")
    kept = messages[: spoken[-1] + 1] if spoken else ()
    flags = [may and is_action(messages[index].content) for index, may in zip(spoken, trained, strict=True)]
    if target is not Target.TRL:
        return _sound({"messages": _weighted(kept, flags)})
    if not all(flags):
        raise ValueError(f"message {spoken[flags.index(False)] + 1} may not be trained, which TRL cannot express")
    return _sound({"messages": _plain(kept)})


def preference_row(
    prefix: Sequence[Message], chosen: str, rejected: str, target: Target, extra: Mapping[str, object] | None = None
) -> dict[str, Any]:
    """One pair of actions after the same prefix.

    Together and OpenAI: {"input": {"messages": […]}, "preferred_output": […], "non_preferred_output": […]} and nothing
    else. TRL: {"prompt", "chosen", "rejected"} and the columns of `extra`.

    Raises:
        ValueError: the row breaks a rule; `chosen` is not strictly one protocol object, for example. `rejected` may be.
    """
    if target is Target.TRL:
        row = {"prompt": _plain(prefix), "chosen": _answer(chosen), "rejected": _answer(rejected)}
        if taken := sorted(READ_BY_TRL & set(extra or ())):
            raise ValueError(f"column {taken[0]!r} has a meaning to TRL")
        return _sound({**row, **(extra or {})})
    pair = {"preferred_output": _answer(chosen), "non_preferred_output": _answer(rejected)}
    return _sound({"input": {"messages": _plain(prefix)}, **pair})


def answer_row(question_id: str, prompt: Sequence[Message], answer: str, raw: bool = False) -> dict[str, Any]:
    """The answer to a question, in whatever form: only it is trained.

    {"prompt": […], "completion": [one message], "question_id"}; `raw`: prompt and completion are strings.

    Raises ValueError where the row breaks a rule; the answer is empty, for example.
    """
    if raw:
        return _sound({"prompt": prompt[-1].content, "completion": answer, "question_id": question_id})
    return _sound({"prompt": _plain(prompt), "completion": _answer(answer), "question_id": question_id})


def is_action(text: str) -> bool:
    """Strictly one protocol object: what a message must be to be trained."""
    return parse(text).problem is None


def _plain(messages: Sequence[Message]) -> list[dict[str, Any]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _answer(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


def _weighted(messages: Sequence[Message], flags: Sequence[bool]) -> list[dict[str, Any]]:
    """The messages, each of the assistant's with its weight: the flags in order, 0 where they have ended."""
    rows, left = _plain(messages), iter(flags)
    for row in rows:
        if row["role"] == "assistant":
            row["weight"] = int(next(left, False))
    return rows


def _sound(row: dict[str, Any]) -> dict[str, Any]:
    if faults := inspect_row(row).faults:
        raise ValueError(faults[0])
    return row


def inspect_row(row: Mapping[str, Any]) -> RowView:
    """Which format a decoded row has, and every rule that it breaks, each in words fit for a user."""
    found = _format_of(row)
    if found is None:
        shown = ", ".join(sorted(row)[:8])[:200]
        return RowView(faults=(f"unknown columns, or those of several formats: {shown or 'none'}",))
    others = sorted(set(row) - set(_COLUMNS[found]))
    bad = others if found in _NO_EXTRAS else [name for name in others if name in READ_BY_TRL]
    view = _VIEWS[found](row)
    return replace(view, format=found, faults=(*(f"unknown column {name[:100]!r}" for name in bad), *view.faults))


def _format_of(row: Mapping[str, Any]) -> RowFormat | None:
    fits = {columns: name for name, columns in _COLUMNS.items() if set(columns) <= set(row)}
    if len(fits) != 1:
        return None
    found = fits.popitem()[1]
    if "completion" in row:
        return _prompt_completion_format(row)
    if "messages" not in row:
        return found
    weighted = any("weight" in message for message in _dicts(row["messages"]))
    return RowFormat.SFT_WEIGHTED if weighted else RowFormat.SFT_MESSAGES


def _prompt_completion_format(row: Mapping[str, Any]) -> RowFormat:
    if isinstance(row["prompt"], str) and isinstance(row["completion"], str):
        return RowFormat.SFT_TEXT
    return RowFormat.SFT_QUESTION if "question_id" in row else RowFormat.SFT_PROMPT_COMPLETION


def _conversation_view(row: Mapping[str, Any]) -> RowView:
    messages = row["messages"]
    faults = _message_faults(messages, "messages", weights=True)
    spoken = [(number, item) for number, item in enumerate(_dicts(messages), 1) if item.get("role") == "assistant"]
    trained = [(number, item) for number, item in spoken if item.get("weight", 1) != 0]
    if not faults:
        first = next(item["role"] for item in messages if item["role"] != "system" or len(messages) == 1)
        faults += ["the first message after the system's is the assistant's"] if first == "assistant" else []
        faults += [] if messages[-1]["role"] == "assistant" else ["the last message is not the assistant's"]
    faults += [] if trained or not _dicts(messages) else ["no assistant message is trained"]
    for number, item in trained:
        faults += _action_faults(item.get("content"), f"message {number}")
    last_only = len(trained) == 1 and trained[0][0] == len(_dicts(messages))
    return RowView(None, tuple(faults), len(_dicts(messages)), len(trained), last_only)


def _step_view(row: Mapping[str, Any]) -> RowView:
    view = _question_view(row)
    return replace(view, faults=(*view.faults, *_action_faults(_text_of(row["completion"]), "the completion")))


def _question_view(row: Mapping[str, Any]) -> RowView:
    faults = _prompt_faults(row["prompt"], "prompt") + _answer_faults(row["completion"], "completion")
    return RowView(None, tuple(faults), len(_dicts(row["prompt"])) + 1, 1, True)


def _text_view(row: Mapping[str, Any]) -> RowView:
    faults = [f"{name}: {fault}" for name in ("prompt", "completion") for fault in _content_faults(row[name])]
    return RowView(None, tuple(faults), 2, 1, True)


def _pair_view(prompt: object, chosen: object, rejected: object, names: Sequence[str]) -> RowView:
    faults = _prompt_faults(prompt, names[0])
    faults += _answer_faults(chosen, names[1]) + _answer_faults(rejected, names[2])
    better, worse = _text_of(chosen), _text_of(rejected)
    faults += [f"{names[1]} and {names[2]} are equal"] if better is not None and better == worse else []
    faults += _action_faults(better, names[1])
    malformed = worse is not None and not is_action(worse)
    return RowView(None, tuple(faults), len(_dicts(prompt)) + 2, 1, False, malformed)


def _preference_view(row: Mapping[str, Any]) -> RowView:
    given = row["input"] if isinstance(row["input"], dict) else {}
    names = ("input.messages", "preferred_output", "non_preferred_output")
    view = _pair_view(given.get("messages"), row["preferred_output"], row["non_preferred_output"], names)
    strange = sorted(set(given) - {"messages", "tools", "parallel_tool_calls"})
    return replace(view, faults=(*(f"unknown key {name[:100]!r} in input" for name in strange), *view.faults))


_VIEWS: dict[RowFormat, Callable[[Mapping[str, Any]], RowView]] = {
    RowFormat.SFT_WEIGHTED: _conversation_view,
    RowFormat.SFT_MESSAGES: _conversation_view,
    RowFormat.SFT_PROMPT_COMPLETION: _step_view,
    RowFormat.SFT_QUESTION: _question_view,
    RowFormat.SFT_TEXT: _text_view,
    RowFormat.PREFERENCE: _preference_view,
    RowFormat.PREFERENCE_TRL: lambda row: _pair_view(row["prompt"], row["chosen"], row["rejected"], _PAIR),
}


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text_of(answer: object) -> str | None:
    content = _dicts(answer)[0].get("content") if _dicts(answer) else None
    return content if isinstance(content, str) else None


def _prompt_faults(messages: object, name: str) -> list[str]:
    faults = _message_faults(messages, name)
    ends = _dicts(messages)[-1:]
    return (
        [*faults, f"{name} ends with an assistant message"] if ends and ends[0].get("role") == "assistant" else faults
    )


def _answer_faults(messages: object, name: str) -> list[str]:
    found = _dicts(messages)
    if not isinstance(messages, list) or len(messages) != 1 or not found or found[0].get("role") != "assistant":
        return [f"{name} is not exactly one assistant message"]
    return _message_faults(messages, name)


def _action_faults(content: object, name: str) -> list[str]:
    """What keeps a text from being trained; nothing for what is no text, which is a fault of its own."""
    problem = parse(content).problem if isinstance(content, str) and content.strip() else None
    return [f"{name} is trained and is not strictly one protocol object: {problem}"] if problem else []


def _message_faults(messages: object, name: str, weights: bool = False) -> list[str]:
    """Faults of a list of messages, as such; messages are numbered from 1."""
    if not isinstance(messages, list) or not messages:
        return [f"{name} is empty" if messages == [] else f"{name} is not a list of messages"]
    faults: list[str] = []
    before = None
    for number, message in enumerate(messages, 1):
        where = f"message {number}" if name == "messages" else f"{name}, message {number}"
        if not isinstance(message, dict):
            return [*faults, f"{where} is not an object"]
        role = message.get("role")
        faults += [f"{where}: {fault}" for fault in _fields_faults(message, weights)]
        faults += [f"{where}: a system message that is not the first"] if role == "system" and number > 1 else []
        faults += [f"{where}: two messages of role {role!r} in a row"] if role == before and role in _ROLES else []
        before = role
    return faults


def _fields_faults(message: Mapping[str, Any], weights: bool) -> list[str]:
    role, content = message.get("role"), message.get("content")
    faults = [] if role in _ROLES else [f"role {str(role)[:50]!r} is none of {', '.join(_ROLES)}"]
    faults += _content_faults(content)
    if "weight" in message and (not weights or role != "assistant"):
        faults.append("a weight on a message that takes none")
    elif "weight" in message and (type(message["weight"]) is not int or message["weight"] not in (0, 1)):
        faults.append("the weight is neither 0 nor 1")
    unknown = sorted(set(message) - {"role", "content", "weight"})
    return [*faults, *(f"unknown key {key[:100]!r}" for key in unknown)]


def _content_faults(content: object) -> list[str]:
    if not isinstance(content, str):
        return ["the content is not a string"]
    if not content.strip():
        return ["the content is empty"]
    try:
        content.encode()
    except UnicodeEncodeError:
        return ["the content holds half of a surrogate pair"]
    return []
