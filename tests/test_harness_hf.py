"""The `hf` policy with a real model: it says what transformers says, each row of a batch for itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'train'")
pytest.importorskip("peft", reason="needs the extra 'train'")

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, MistralConfig, MistralForCausalLM

from harness.policies.hf_policy import JOIN_TOKENS, Batch, HfEngine, HfSettings, HfSource, Row
from harness.policies.hf_prefixes import shareable
from harness.policies.local_engine import Request
from harness.records import Completion, FinishReason, Message, Sampling
from tests.local_models import (
    TASK,
    TEXTS,
    Open,
    asked,
    close,
    generated,
    lively_model,
    prompt_ids,
    said,
    said_together,
    sources,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lively_model(tmp_path_factory.mktemp("hf") / "tiny")


@pytest.fixture(scope="module")
def adapter(model: Path) -> Path:
    """A LoRA adapter whose weights are random in both halves."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), config).save_pretrained(model.parent / "adapter")
    return model.parent / "adapter"


@pytest.fixture
def opened(model: Path) -> Iterator[Open]:
    with sources(model) as start:
        yield start


# ---- what is said


def test_greedy_is_what_transformers_generates(model: Path, opened: Open) -> None:
    network, source = AutoModelForCausalLM.from_pretrained(model), opened()
    for text in TEXTS:
        ids = prompt_ids(model, text)
        completion = said(source, text)
        assert completion.token_ids == generated(network, ids)
        assert completion.usage.prompt_tokens == ids.shape[1]
        assert len(set(completion.token_ids)) > 3


def test_rows_of_different_lengths_seeds_temperatures_and_limits_say_what_they_say_alone(opened: Open) -> None:
    settings: list[dict[str, Any]] = [
        {"temperature": 0.0, "max_tokens": 9},
        {"temperature": 1.0, "seed": 5},
        {"temperature": 0.3, "seed": 6, "max_tokens": 31},
        {"temperature": 1.0, "seed": 5, "max_tokens": 1},
    ]
    source = opened()
    alone = [said(source, text, **own) for text, own in zip(TEXTS, settings, strict=True)]
    together = said_together(source, settings)
    for one, other in zip(alone, together, strict=True):
        assert (one.token_ids, one.text, one.finish_reason) == (other.token_ids, other.text, other.finish_reason)
        assert close(one.logprobs, other.logprobs)
    assert [len(each.token_ids or ()) for each in together] == [9, 24, 31, 1]


def test_a_seed_says_the_same_again_and_another_one_something_else(opened: Open) -> None:
    source = opened()
    first, again, other = (said(source, "hello", temperature=1.0, seed=seed).token_ids for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.5])
def test_logprobs_are_those_of_a_forward_pass_over_what_was_said(model: Path, opened: Open, temperature: float) -> None:
    completion = said(opened(), "hello", temperature=temperature, seed=3)
    assert completion.token_ids is not None
    ids = prompt_ids(model, "hello")
    with torch.no_grad():
        network = AutoModelForCausalLM.from_pretrained(model)
        logits = network(torch.cat([ids, torch.tensor([completion.token_ids])], 1)).logits[0, ids.shape[1] - 1 : -1]
    found = (logits / (temperature or 1.0)).log_softmax(-1)
    expected = [float(found[place, token]) for place, token in enumerate(completion.token_ids)]
    assert close(completion.logprobs, expected)


def test_the_stop_token_ends_a_row_and_is_kept_in_the_ids(model: Path) -> None:
    network = AutoModelForCausalLM.from_pretrained(model)
    ids = prompt_ids(model, "hello")
    greedy = generated(AutoModelForCausalLM.from_pretrained(model), ids)
    place = next(place for place in range(3, len(greedy)) if greedy[place] not in greedy[:place])
    network.generation_config = GenerationConfig()
    engine = HfEngine(network, [greedy[place]], HfSettings(batch_size=2))
    requests = [Request(tuple(ids[0].tolist()), Sampling(max_tokens=limit)) for limit in (24, 2)]
    engine.add(requests)
    engine.step(threading.Event())
    engine.step(threading.Event())
    assert [request.answer.result(0).token_ids for request in requests] == [greedy[: place + 1], greedy[:2]]


def test_the_text_is_without_the_stop_token_and_the_finish_reason_tells_stop_from_length(
    model: Path, opened: Open
) -> None:
    source = opened(batch_size=12)
    with ThreadPoolExecutor(12) as pool:
        found = list(
            pool.map(lambda seed: said(source, "hello", temperature=50.0, seed=seed, max_tokens=400), range(12))
        )
    ends = {FinishReason.STOP: 0, FinishReason.LENGTH: 0}
    for completion in found:
        assert completion.token_ids is not None
        assert (completion.token_ids[-1] == 1) == (completion.finish_reason is FinishReason.STOP)
        assert "<|im_end|>" not in completion.text
        assert completion.usage.completion_tokens == len(completion.token_ids)
        ends[completion.finish_reason] += 1
    assert all(ends.values())


def test_samples_have_the_distribution_of_the_softmax() -> None:
    """Chi-square with 7 degrees of freedom: above 24.3 with a probability of 0.001."""
    logits, temperature, draws = torch.tensor([[2.0, 1.0, 0.5, 0.0, 0.0, -1.0, -2.0, 1.5]]), 0.7, 20_000
    expected = (logits[0] / temperature).softmax(-1).double() * draws
    one = rows(Sampling(temperature=temperature, seed=11))
    of_one_seed = torch.tensor([int(one.sample(logits)) for _ in range(draws)])
    of_many_seeds = rows(*(Sampling(temperature=temperature, seed=seed) for seed in range(draws))).sample(
        logits.expand(draws, -1)
    )
    for chosen in (of_one_seed, of_many_seeds):
        seen = torch.bincount(chosen, minlength=8).double()
        assert float(((seen - expected) ** 2 / expected).sum()) < 24.3


def rows(*samplings: Sampling) -> Batch:
    made = [Row(Request((1,), each), torch.Generator().manual_seed(each.seed)) for each in samplings]
    return Batch(made, torch.tensor([0]), 1, threading.Event(), False)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_turn_joins_while_a_long_message_is_under_way(model: Path, temperature: float) -> None:
    def asked_for(limit: int, seed: int) -> Request:
        return Request((7, 8, 9, seed), Sampling(temperature=temperature, max_tokens=limit, seed=seed))

    network = AutoModelForCausalLM.from_pretrained(model)
    engine = HfEngine(network, [network.config.vocab_size - 1], HfSettings(batch_size=3))
    long, short, third = asked_for(90, 1), asked_for(4, 2), asked_for(60, 3)
    engine.add([long, short, third])
    engine.step(threading.Event())
    assert short.answer.done() and not long.answer.done() and not third.answer.done()
    engine.add([turn := asked_for(5, 4)])
    engine.step(threading.Event())
    assert turn.answer.done() and not long.answer.done()
    while not long.answer.done():
        engine.step(threading.Event())
    for request in (long, short, third, turn):
        alone = HfEngine(network, [network.config.vocab_size - 1], HfSettings(batch_size=1))
        alone.add([again := Request(request.prompt_ids, request.sampling)])
        alone.step(threading.Event())
        assert request.answer.result(0).token_ids == again.answer.result(0).token_ids
        assert close(request.answer.result(0).logprobs, again.answer.result(0).logprobs)


def test_a_generation_is_not_cut_into_pieces_where_no_row_has_ended(model: Path) -> None:
    network = AutoModelForCausalLM.from_pretrained(model)
    engine = HfEngine(network, [network.config.vocab_size - 1], HfSettings(batch_size=2))
    requests = [Request((7, 8, 9), Sampling(max_tokens=3 * JOIN_TOKENS)) for _ in range(2)]
    engine.add(requests)
    engine.step(threading.Event())
    assert all(request.answer.done() for request in requests)


def test_a_models_own_generation_settings_change_nothing(model: Path, opened: Open, tmp_path: Path) -> None:
    network = AutoModelForCausalLM.from_pretrained(model)
    network.generation_config = GenerationConfig(
        do_sample=True, temperature=0.1, top_k=1, top_p=0.1, repetition_penalty=9.0, max_new_tokens=2, min_p=0.5
    )
    network.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path / "other")
    for temperature in (0.0, 1.0):
        own, other = (
            said(source, "hello", temperature=temperature) for source in (opened(), opened(tmp_path / "other"))
        )
        assert own.token_ids == other.token_ids
        assert len(own.token_ids or ()) == 24


def test_an_adapter_says_what_peft_says_and_not_what_the_base_says(model: Path, adapter: Path, opened: Open) -> None:
    from peft import PeftModel

    network = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), str(adapter))
    network.get_base_model().generation_config = GenerationConfig()
    with_adapter = said(opened(adapter), "hello")
    assert with_adapter.token_ids == generated(network, prompt_ids(model, "hello"))
    assert with_adapter.token_ids != said(opened(), "hello").token_ids


# ---- earlier turns


def test_what_is_kept_of_earlier_turns_changes_nothing(opened: Open) -> None:
    """Three conversations, of which two begin alike, turn by turn; against an engine that keeps nothing."""
    keeping, forgetting = opened(), opened()
    with ThreadPoolExecutor(3) as pool:
        turns = list(pool.map(lambda number: conversation(keeping, number), (0, 1, 12)))
        for number, own in zip((0, 1, 12), turns, strict=True):
            for one, other in zip(own, conversation(forgetting, number, forget=True), strict=True):
                assert one.token_ids == other.token_ids
                assert close(one.logprobs, other.logprobs)


def conversation(source: HfSource, number: int, forget: bool = False) -> list[Completion]:
    messages, found = list(asked("the same " * 20 + str(number)[0])), list[Completion]()
    for turn in range(4):
        if forget:
            source.engine.abandon()
        sampling = Sampling(temperature=0.5, seed=10 * number + turn, max_tokens=12)
        found.append(source.policy(TASK, 0).complete(messages, sampling))
        messages += [Message(role="assistant", content=found[-1].text), Message(role="user", content="go on " * turn)]
    return found


def test_a_turn_computes_only_what_is_new(opened: Open) -> None:
    source = opened()
    computed: list[int] = []
    network = source.engine.network
    network.model.register_forward_pre_hook(
        lambda module, given, named: computed.append(named["input_ids"].numel()), with_kwargs=True
    )
    first = said(source, "a long beginning " * 40, max_tokens=3)
    assert sum(computed) == (first.usage.prompt_tokens or 0) + 2
    computed.clear()
    longer = said(source, "a long beginning " * 40 + "and its end", max_tokens=3)
    assert sum(computed) < 40 < (longer.usage.prompt_tokens or 0)


def test_layers_that_forget_are_not_shared() -> None:
    sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    assert not shareable(MistralForCausalLM(MistralConfig(**sizes, **heads, sliding_window=4)))
    assert shareable(MistralForCausalLM(MistralConfig(**sizes, **heads, sliding_window=None)))
