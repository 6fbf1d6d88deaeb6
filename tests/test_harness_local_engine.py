"""What policies on local models share: the engine's thread, its faults, and which flags go with which engine."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.budget import Budget
from harness.errors import InfrastructureError, UsageError
from harness.policies.litellm_policy import ServiceSettings
from harness.policies.local_engine import Answer, EngineThread, Request, out_of_memory
from harness.policies.sources import LocalSettings, load_source
from harness.records import Sampling
from repo_agent import main
from suites.run_cli import add_run_flags, local_extra, local_settings

WAIT_S = 20.0
Make = Callable[..., tuple["Echo", EngineThread]]


class Echo:
    """An engine that answers each prompt with itself, a batch a step; it can be held up, and can fail once."""

    memory_advice = "--hf-batch-size"

    def __init__(self, most: int = 2, fault: Exception | None = None, linger_s: float = 0.0) -> None:
        self.most, self.linger_s, self.fault = most, linger_s, fault
        self.go, self.began, self.closed = threading.Event(), threading.Event(), threading.Event()
        self.go.set()
        self.batches: list[list[tuple[int, ...]]] = []
        self.added: list[Request] = []

    def add(self, requests: Sequence[Request]) -> None:
        self.added += requests
        self.batches.append([request.prompt_ids for request in requests])

    def step(self, closing: threading.Event) -> None:
        self.began.set()
        assert self.go.wait(WAIT_S)
        if (fault := self.fault) is not None:
            self.fault = None
            raise fault
        for request in self.added:
            request.settle(Answer(request.prompt_ids, (0.0,) * len(request.prompt_ids)))
        self.added = []

    def abandon(self) -> None:
        self.added = []

    def close(self) -> None:
        self.closed.set()


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[tuple[Echo, EngineThread]] = []

    def start(most: int = 2, fault: Exception | None = None, linger_s: float = 0.0) -> tuple[Echo, EngineThread]:
        engine = Echo(most, fault, linger_s)
        made.append((engine, EngineThread(engine)))
        return made[-1]

    yield start
    for engine, thread in made:
        engine.go.set()
        thread.close()


def test_requests_that_wait_at_the_same_time_are_begun_together_as_many_as_the_engine_takes(make: Make) -> None:
    engine, thread = make(most=2)
    engine.go.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(thread.answer, [0], Sampling())
        assert engine.began.wait(WAIT_S)
        others = [pool.submit(thread.answer, [number], Sampling()) for number in (1, 2, 3)]
        while len(thread._waiting) < 3:
            threading.Event().wait(0.001)
        engine.go.set()
        said = [future.result(WAIT_S).token_ids for future in (first, *others)]
    assert said == [(0,), (1,), (2,), (3,)]
    assert [len(batch) for batch in engine.batches] == [1, 2, 1]


def test_an_idle_engine_waits_for_stragglers_until_it_is_full(make: Make) -> None:
    engine, thread = make(most=2, linger_s=WAIT_S)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(thread.answer, [number], Sampling()) for number in (1, 2)]
        assert {future.result(WAIT_S / 2).token_ids for future in futures} == {(1,), (2,)}
    assert [len(batch) for batch in engine.batches] == [2]


def test_an_idle_engine_does_not_wait_for_ever(make: Make) -> None:
    _, thread = make(most=2, linger_s=0.01)
    assert thread.answer([1], Sampling()).token_ids == (1,)


def test_close_ends_the_waiting_of_requests_under_way_and_of_those_not_begun(make: Make) -> None:
    engine, thread = make(most=1)
    engine.go.clear()
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(thread.answer, [number], Sampling()) for number in (1, 2)]
        assert engine.began.wait(WAIT_S)
        closing = pool.submit(thread.close)
        errors = [future.exception(WAIT_S) for future in futures]
        engine.go.set()
        closing.result(WAIT_S)
    assert [str(error) for error in errors] == ["model calls were stopped"] * 2
    assert all(isinstance(error, InfrastructureError) for error in errors)
    assert engine.closed.is_set()


def test_after_close_no_request_is_taken_and_a_second_close_is_nothing(make: Make) -> None:
    _, thread = make()
    thread.close()
    thread.close()
    with pytest.raises(InfrastructureError, match="model calls were stopped"):
        thread.answer([1], Sampling())


@pytest.mark.parametrize("fault", [MemoryError(), RuntimeError("CUDA error: out of memory")])
def test_out_of_memory_is_infrastructure_names_the_setting_and_the_engine_goes_on(make: Make, fault: Exception) -> None:
    _, thread = make(fault=fault)
    with pytest.raises(InfrastructureError, match="out of memory: lower --hf-batch-size"):
        thread.answer([1], Sampling())
    assert thread.answer([2], Sampling()).token_ids == (2,)


def test_a_dead_engine_is_infrastructure(make: Make) -> None:
    _, thread = make(fault=InfrastructureError("the engine died"))
    with pytest.raises(InfrastructureError, match="the engine died"):
        thread.answer([1], Sampling())


def test_a_bug_in_the_engine_is_raised_in_its_callers_as_it_is(make: Make) -> None:
    _, thread = make(fault=ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        thread.answer([1], Sampling())


def test_not_every_error_is_a_lack_of_memory() -> None:
    assert not out_of_memory(RuntimeError("shapes do not fit"))
    assert not out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize(
    ("provider", "api_base", "local", "flag"),
    [
        ("openai", "", LocalSettings(device="cpu"), "--device"),
        ("together", "", LocalSettings(dtype="float32"), "--dtype"),
        ("hf", "", LocalSettings(constrain="json"), "--constrain"),
        ("hf", "", LocalSettings(fallback="hf"), "--fallback"),
        ("hf", "", LocalSettings(engine_args={"a": 1}), "--engine-arg"),
        ("vllm", "", LocalSettings(hf_batch_size=2), "--hf-batch-size"),
        ("vllm", "http://127.0.0.1:1/v1", LocalSettings(max_context=9), "--max-context"),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(provider: str, api_base: str, local: LocalSettings, flag: str) -> None:
    with pytest.raises(UsageError, match=f"{flag} is for a model in this process"):
        load_source(provider, "m", ServiceSettings(api_base), Budget(), lambda task: None, local)


def test_a_fallback_that_would_drop_the_constraint_is_refused() -> None:
    local = LocalSettings(constrain="json", fallback="hf")
    with pytest.raises(UsageError, match="--fallback hf cannot keep --constrain json"):
        load_source("vllm", "m", ServiceSettings(), Budget(), lambda task: None, local)


@pytest.mark.parametrize("provider", ["hf", "vllm"])
def test_a_local_engine_needs_a_model(provider: str) -> None:
    with pytest.raises(UsageError, match=f"--llm-provider {provider} needs a --model"):
        load_source(provider, "", ServiceSettings(), Budget(), lambda task: None)


def test_hf_takes_no_address() -> None:
    with pytest.raises(UsageError, match="--llm-provider hf takes no --api-base"):
        load_source("hf", "m", ServiceSettings("http://127.0.0.1:1"), Budget(), lambda task: None)


def test_engine_arguments_are_json_where_they_can_be_and_else_text() -> None:
    made = argparse.ArgumentParser()
    add_run_flags(made)
    flags = ["--engine-arg", "block_size=16", "--engine-arg", "quantization=fp8", "--engine-arg", "enforce_eager=true"]
    given = local_settings(made.parse_args([*flags, "--num-workers", "3"]))
    assert given == LocalSettings(
        engine_args={"block_size": 16, "quantization": "fp8", "enforce_eager": True}, num_workers=3
    )


def test_an_engine_argument_without_a_value_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--llm-provider", "vllm", "--model", "m", "--engine-arg", "block_size"]) == 2
    assert "not NAME=VALUE: 'block_size'" in capsys.readouterr().err


def test_settings_that_decide_results_belong_to_the_configuration_and_others_do_not() -> None:
    assert local_extra(LocalSettings(device="cpu", hf_batch_size=3, num_workers=9)) == {}
    decided = local_extra(
        LocalSettings(constrain="json", fallback="hf", max_context=64, engine_args={"b": 1, "a": "x"})
    )
    assert decided == {"constrain": "json", "fallback": "hf", "max_context": 64, "engine_args": '{"a": "x", "b": 1}'}
