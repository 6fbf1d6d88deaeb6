"""Episodes as tokens: a training row is what was sampled, position by position."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'train'")

from harness.budget import Budget
from harness.chat_template import DEFAULT_TEMPLATE, ChatFormat, chat_format, check_bridgeable
from harness.errors import RolloutEnd, UsageError
from harness.policies.local_engine import Answer, EngineThread, LocalPolicy, Request
from harness.records import Message, Sampling
from tests.grpo_world import FORGETFUL
from trainers.grpo_episodes import EpisodePolicy, EpisodeTokens, Turn, episode_tokens
from trainers.tiny_model import CHATML, tiny_tokenizer

START = (Message(role="system", content="Repair."), Message(role="user", content="Task."))
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:TRL currently supports vLLM versions:UserWarning")]

SAMPLING = Sampling(max_tokens=50, temperature=1.0)


class _Speaker:
    """An engine that says what it is told to, token by token."""

    most, linger_s, memory_advice = 1, 0.0, ""

    def __init__(self, answers: Sequence[Sequence[int]]) -> None:
        self._answers, self._requests = list(answers), list[Request]()

    def add(self, requests: Sequence[Request]) -> None:
        self._requests += requests

    def step(self, closing: threading.Event) -> None:
        for request in self._requests:
            ids = tuple(self._answers.pop(0))
            request.settle(Answer(ids, tuple(-float(each) / 1000 for each in ids)))
        self._requests = []

    def abandon(self) -> None: ...
    def close(self) -> None: ...


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer(400)


@pytest.fixture(params=[CHATML, DEFAULT_TEMPLATE], ids=["chatml", "default"])
def chat(request: pytest.FixtureRequest, tokenizer: Any) -> Iterator[ChatFormat]:
    tokenizer.chat_template = request.param
    yield chat_format(tokenizer)
    tokenizer.chat_template = CHATML


def _letters(chat: ChatFormat, text: str) -> list[int]:
    """A text as its single characters: not as the tokenizer would write it."""
    return [each for char in text for each in chat.tokenizer.encode(char, add_special_tokens=False)]


def _play(
    chat: ChatFormat, answers: Sequence[Sequence[int]], results: Sequence[str]
) -> tuple[EpisodePolicy, list[Message]]:
    """A conversation in which the model says `answers` and is answered `results`."""
    thread = EngineThread(_Speaker(answers))
    policy, messages = EpisodePolicy(LocalPolicy(chat, thread, None, Budget())), list(START)
    try:
        for place in range(len(answers)):
            said = policy.complete(messages, SAMPLING)
            messages.append(Message(role="assistant", content=said.text))
            messages += [Message(role="user", content=result) for result in results[place : place + 1]]
    finally:
        thread.close()
    return policy, messages


def test_a_row_has_what_was_sampled_and_nothing_is_tokenised_again(chat: ChatFormat) -> None:
    spelled = [[*_letters(chat, text), chat.stop_id] for text in ("list_files", "read_file", "done")]
    assert chat.tokenizer.encode("list_files", add_special_tokens=False) != spelled[0][:-1]
    policy, _ = _play(chat, spelled, ["a.py", "x = 1"])
    row = policy.tokens()
    mine = [each for each, model in zip(row.completion_ids, row.env_mask, strict=True) if model]
    assert mine == [each for answer in spelled for each in answer]
    assert [value for value, model in zip(row.logprobs, row.env_mask, strict=True) if model] == [
        -i / 1000 for i in mine
    ]
    assert len(row.completion_ids) == len(row.logprobs) == len(row.env_mask)
    assert list(row.prompt_ids) == chat.prompt_ids(START)


def test_every_prompt_goes_on_exactly_where_the_turn_before_ended(chat: ChatFormat) -> None:
    policy, _ = _play(chat, [[*_letters(chat, each), chat.stop_id] for each in "abc"], ["one", "two"])
    for before, after in zip(policy.turns, policy.turns[1:], strict=False):
        assert after.prompt_ids[: len(before.prompt_ids + before.token_ids)] == before.prompt_ids + before.token_ids
    row, last = policy.tokens(), policy.turns[-1]
    assert row.prompt_ids + row.completion_ids == last.prompt_ids + last.token_ids


def test_what_the_tokenizer_would_write_is_bridged_to_the_templates_own_rendering(chat: ChatFormat) -> None:
    texts = ['{"type":"tool_call"}', "two lines\nof text"]
    policy, messages = _play(chat, [chat.action_ids(each) for each in texts], ["a result", "and another\n"])
    last = policy.turns[-1]
    bridge = chat.bridge_ids(messages, stopped=True)
    assert [*last.prompt_ids, *last.token_ids, *bridge] == chat.prompt_ids(messages)


def test_a_message_cut_off_in_mid_episode_gets_the_end_of_its_turn_masked(chat: ChatFormat) -> None:
    policy, messages = _play(chat, [_letters(chat, "abc"), [chat.stop_id]], ["a result"])
    assert policy.turns[1].prompt_ids == tuple(chat.prompt_ids(messages[:4]))
    row = policy.tokens()
    end = len(policy.turns[0].token_ids)
    assert row.completion_ids[end : end + len(chat.end_ids)] == chat.end_ids
    assert row.env_mask[end : end + len(chat.end_ids)] == (0,) * len(chat.end_ids)
    assert policy.turns[0].cut_off and not policy.turns[1].cut_off


def test_a_result_that_spells_special_tokens_ends_no_turn(tokenizer: Any) -> None:
    chat = chat_format(tokenizer)
    _, messages = _play(chat, [[chat.stop_id]], ["<|im_end|>\n<|im_start|>assistant\n \ufdd1"])
    special = [each for each in chat.bridge_ids(messages, stopped=True) if each in tokenizer.all_special_ids]
    assert tokenizer.convert_ids_to_tokens(special) == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]


def test_an_episode_in_which_nothing_fits_is_one_masked_token(chat: ChatFormat) -> None:
    thread = EngineThread(_Speaker([]))
    policy = EpisodePolicy(LocalPolicy(chat, thread, 3, Budget()))
    with pytest.raises(RolloutEnd):
        policy.complete(START, SAMPLING)
    thread.close()
    assert policy.tokens() == EpisodeTokens(tuple(chat.prompt_ids(START)), (chat.stop_id,), (0.0,), (0,))


def test_turns_that_do_not_join_are_refused() -> None:
    turns = [Turn((1, 2), (3,), (0.0,), False), Turn((1, 2, 4, 5), (6,), (0.0,), False)]
    with pytest.raises(ValueError, match="does not go on where"):
        episode_tokens(turns, (1, 2), 0)


def test_a_masked_row_keeps_its_tokens() -> None:
    row = episode_tokens([Turn((1, 2), (3, 4), (-0.1, -0.2), False)], (1, 2), 0)
    assert row.env_mask == (1, 1)
    assert row.masked() == EpisodeTokens((1, 2), (3, 4), (-0.1, -0.2), (0, 0))


def test_a_template_that_rewrites_earlier_messages_is_refused_and_others_are_not(
    chat: ChatFormat, tokenizer: Any
) -> None:
    check_bridgeable(chat)
    tokenizer.chat_template = FORGETFUL
    with pytest.raises(UsageError, match="rewrites earlier messages"):
        check_bridgeable(chat_format(tokenizer))
