"""Local models through vLLM's own engine, on a CPU, against transformers.

One engine at a time lives in a process, so tests are grouped by the engine that they need.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from harness.budget import Budget
from harness.errors import InfrastructureError, PolicyRefused, RolloutEnd, UsageError
from harness.policies.local_engine import EngineUnavailable, LocalPolicy
from harness.policies.vllm_policy import VllmSettings, VllmSource
from harness.policy import Policy
from harness.records import Completion, FinishReason, Message, Sampling, StopReason
from harness.run_files import RUN_FILE
from harness.trace_reader import read_traces
from suites.base import load
from tests.vllm_world import expected_logprobs, greedy_ids, make_models, network
from tools.protocol import parse

pytest.importorskip("torch", reason="needs the extra 'train'")
Test = TypeVar("Test", bound=Callable[..., None])
CONTEXT = 1024
TASK = load("minibugs", None).tasks()[0]
PROMPTS = ("Say a number.", "def add(a, b):\n    return a - b\n", "list the files of this repository, é", "x")
CACHE: dict[str, object] = {"kv_cache_memory_bytes": 2**28}
KINDS: dict[str, tuple[str, VllmSettings]] = {
    "plain": ("tiny", VllmSettings(num_workers=4, max_context=CONTEXT, engine_args=dict(CACHE))),
    "adapter": ("adapter", VllmSettings(num_workers=4, max_context=CONTEXT, engine_args=dict(CACHE))),
    "constrained": ("tiny", VllmSettings(num_workers=8, constrain="json", engine_args=dict(CACHE))),
}
plain, adapter, constrained = (
    [pytest.mark.slow, pytest.mark.parametrize("source", [kind], indirect=True)] for kind in KINDS
)


def marked(marks: Sequence[pytest.MarkDecorator]) -> Callable[[Test], Test]:
    def mark(test: Test) -> Test:
        for each in marks:
            test = each(test)
        return test

    return mark


@pytest.fixture(scope="module")
def vllm() -> None:
    """A skip where vLLM is not installed; where CI requires it, a failure."""
    if importlib.util.find_spec("vllm") is None:
        if os.environ.get("REPO_AGENT_REQUIRE_VLLM") == "1":
            pytest.fail("vLLM is required here")
        pytest.skip("vLLM is not installed")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model `tiny` and an adapter `adapter` of it, whose weights are not zero."""
    directory = tmp_path_factory.mktemp("models")
    make_models(directory)
    return directory


@pytest.fixture(scope="module")
def source(request: pytest.FixtureRequest, vllm: None, models: Path) -> Iterator[VllmSource]:
    name, settings = KINDS[request.param]
    made = VllmSource(str(models / name), settings, Budget())
    yield made
    made.close()


@pytest.fixture
def policy(source: VllmSource) -> LocalPolicy:
    found = source.policy(TASK, 0)
    assert isinstance(found, LocalPolicy)
    return found


def said(policy: Policy, prompt: str, temperature: float = 0.0, max_tokens: int = 40, seed: int = 0) -> Completion:
    sampling = Sampling(temperature=temperature, max_tokens=max_tokens, seed=seed)
    return policy.complete([Message(role="user", content=prompt)], sampling)


def prompt_ids(policy: LocalPolicy, prompt: str) -> list[int]:
    return policy.chat.prompt_ids([Message(role="user", content=prompt)])


@marked(plain)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_tokens_are_those_of_transformers(policy: LocalPolicy, models: Path, prompt: str) -> None:
    assert said(policy, prompt).token_ids == greedy_ids(network(models / "tiny"), prompt_ids(policy, prompt), 40)


@marked(plain)
@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
def test_logprobs_are_those_of_the_distribution_sampled_from(
    policy: LocalPolicy, models: Path, temperature: float
) -> None:
    completion = said(policy, PROMPTS[1], temperature)

    of_model = expected_logprobs(network(models / "tiny"), prompt_ids(policy, PROMPTS[1]), completion, temperature or 1)
    assert completion.logprobs == pytest.approx(of_model.tolist(), abs=1e-3)


@marked(plain)
def test_each_of_a_mixed_batch_has_its_own_temperature(policy: LocalPolicy, models: Path) -> None:
    model, temperatures = network(models / "tiny"), [0.0, 0.5, 1.0, 2.0]
    with ThreadPoolExecutor(4) as pool:
        completions = list(pool.map(lambda each: said(policy, PROMPTS[2], each), temperatures))

    prompt = prompt_ids(policy, PROMPTS[2])
    for temperature, completion in zip(temperatures, completions, strict=True):
        of_model = expected_logprobs(model, prompt, completion, temperature or 1)
        assert completion.logprobs == pytest.approx(of_model.tolist(), abs=1e-3)


@marked(plain)
def test_a_seed_gives_the_same_tokens_again_and_another_seed_gives_others(policy: LocalPolicy) -> None:
    first, again, other = (said(policy, PROMPTS[0], temperature=1.0, seed=seed) for seed in (7, 7, 8))

    assert first.token_ids == again.token_ids
    assert first.token_ids != other.token_ids


@marked(plain)
def test_a_short_answer_does_not_wait_for_a_long_one_that_began_before_it(policy: LocalPolicy) -> None:
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(said, policy, PROMPTS[0], max_tokens=600)
        time.sleep(0.2)
        short = said(policy, PROMPTS[1], max_tokens=5)

        assert not long.done()
        assert (len(short.token_ids or ()), len(long.result().token_ids or ())) == (5, 600)


@marked(plain)
def test_prompts_that_do_not_fit_into_one_step_of_the_engine_are_answered_too(policy: LocalPolicy) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda seed: said(policy, f"{seed} x y z " + "x y z " * 230, 1.0, 20, seed), range(4)))

    assert sum(each.usage.prompt_tokens or 0 for each in done) > 3000
    assert [len(each.token_ids or ()) for each in done] == [20] * 4


@marked(plain)
def test_a_conversation_that_fills_the_context_ends_the_rollout(policy: LocalPolicy) -> None:
    with pytest.raises(RolloutEnd) as ended:
        said(policy, "word " * CONTEXT)

    assert ended.value.reason == StopReason.CONTEXT_FULL


@marked(plain)
def test_an_answer_ends_where_the_context_does(policy: LocalPolicy) -> None:
    prompt = "x y z " * 166
    room = CONTEXT - len(prompt_ids(policy, prompt))
    assert 0 < room < 500

    completion = said(policy, prompt, max_tokens=4096)

    assert (len(completion.token_ids or ()), completion.finish_reason) == (room, FinishReason.LENGTH)


@marked(plain)
def test_a_temperature_that_vllm_does_not_take_ends_the_run_with_one_line(policy: LocalPolicy) -> None:
    with pytest.raises(PolicyRefused, match=r"temperature must be in \[0, 2\]"):
        said(policy, PROMPTS[0], temperature=2.5)

    assert said(policy, PROMPTS[0]).token_ids


@marked(plain)
def test_the_engine_says_what_it_is(source: VllmSource) -> None:
    engine = source.info.engine
    assert engine.startswith("vllm ") and engine.endswith(", float32, cpu")


@marked(plain)
def test_the_engine_is_no_process_of_its_own_and_leaves_the_environment_of_ours(source: VllmSource) -> None:
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for each in children for pid in each.read_text().split()]

    assert not [command for command in commands if b"vllm" in command.lower() or b"multiprocessing" in command]
    assert "tcmalloc" not in os.environ.get("LD_PRELOAD", "")


@marked(adapter)
def test_an_adapter_speaks_as_peft_has_it(policy: LocalPolicy, models: Path) -> None:
    from peft import PeftModel

    tuned = PeftModel.from_pretrained(network(models / "tiny"), str(models / "adapter"))
    prompt = prompt_ids(policy, PROMPTS[1])
    completion = said(policy, PROMPTS[1])

    assert completion.token_ids == greedy_ids(tuned, prompt, 40)
    assert completion.token_ids != greedy_ids(network(models / "tiny"), prompt, 40)
    assert completion.logprobs == pytest.approx(expected_logprobs(tuned, prompt, completion, 1).tolist(), abs=1e-3)


@marked(constrained)
def test_an_untrained_model_under_the_schema_speaks_the_protocol_strictly(policy: LocalPolicy) -> None:
    with ThreadPoolExecutor(8) as pool:
        completions = list(pool.map(lambda seed: said(policy, PROMPTS[0], 1.0, 400, seed), range(32)))

    ended = [each for each in completions if each.finish_reason is FinishReason.STOP]
    assert [each.text for each in ended if parse(each.text).problem is not None] == []
    assert len({parse(each.text).name for each in ended}) >= 3
    assert all(parse(each.text, cut_off=True).problem for each in completions if each not in ended)


@marked(constrained)
def test_under_the_schema_messages_are_written_as_the_protocol_writes_them(policy: LocalPolicy) -> None:
    texts = [said(policy, PROMPTS[3], 1.0, 400, seed).text for seed in range(4)]

    assert all(text.startswith(('{"type": "tool_call", "name": "', '{"type": "final"')) for text in texts)


@marked(constrained)
def test_the_token_that_ends_a_message_is_kept_and_is_no_text(policy: LocalPolicy) -> None:
    seeds = (said(policy, PROMPTS[0], 1.0, 400, seed) for seed in range(20))
    completion = next(each for each in seeds if each.finish_reason is FinishReason.STOP)

    assert (completion.token_ids or ())[-1] == policy.chat.stop_id
    assert json.loads(completion.text)
    assert len(completion.logprobs or ()) == len(completion.token_ids or ())


@marked(constrained)
def test_logprobs_under_the_schema_are_those_of_what_it_leaves(policy: LocalPolicy) -> None:
    assert (said(policy, PROMPTS[0]).logprobs or ())[0] == pytest.approx(0, abs=1e-6)


@marked(constrained)
def test_the_engine_says_that_it_is_constrained(source: VllmSource) -> None:
    assert source.info.engine.endswith(", constrained to json")


@pytest.mark.slow
def test_closing_ends_the_waiting_of_a_rollout(vllm: None, models: Path) -> None:
    source = VllmSource(str(models / "tiny"), VllmSettings(num_workers=1, engine_args=dict(CACHE)), Budget())
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(said, source.policy(TASK, 0), PROMPTS[0], max_tokens=8000) for _ in range(2)]
        time.sleep(0.3)
        source.close()

        for each in waiting:
            with pytest.raises(InfrastructureError, match="stopped"):
                each.result(timeout=1)


@pytest.mark.slow
def test_a_model_that_vllm_cannot_run_is_one_line_that_names_hf(
    vllm: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from trainers.tiny_model import TinyShape, init_tiny

    init_tiny(tmp_path / "odd", shape=TinyShape(hidden_size=40, heads=4))  # heads of 10
    capfd.readouterr()
    with pytest.raises(EngineUnavailable, match=r"vLLM cannot run .*--llm-provider hf") as refused:
        VllmSource(str(tmp_path / "odd"), VllmSettings(), Budget())

    assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "said"), [("no_such", "no such argument"), ("logprobs_mode", "cannot be set")])
def test_an_engine_argument_is_refused(vllm: None, models: Path, name: str, said: str) -> None:
    with pytest.raises(UsageError, match=rf"--engine-arg {name}.*{said}"):
        VllmSource(str(models / "tiny"), VllmSettings(engine_args={name: "x"}), Budget())


def repo_agent(*arguments: object, before: str = "") -> subprocess.CompletedProcess[str]:
    """The command; `before` is run in its process first."""
    script = f"import sys\n{before}\nfrom repo_agent import main\nsys.exit(main({[str(each) for each in arguments]!r}))"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)


def evaluated(model: Path, run: Path, *flags: str, before: str = "") -> subprocess.CompletedProcess[str]:
    asked = ("eval", "--suite", "minibugs", "--limit", 2, "--max-iters", 2, "--max-tokens", 40, "--sandbox", "local")
    local = ("--llm-provider", "vllm", "--model", model, "--trace-dir", run)
    return repo_agent(*asked, *local, *flags, before=before)


@pytest.mark.slow
def test_eval_plays_rollouts_with_vllm(vllm: None, models: Path, tmp_path: Path) -> None:
    done = evaluated(
        models / "tiny", tmp_path / "run", "--constrain", "json", "--engine-arg", f"kv_cache_memory_bytes={2**28}"
    )

    assert done.returncode == 0, done.stderr
    traces = list(read_traces(tmp_path / "run"))
    assert [(each.header.policy, each.header.engine[:5]) for each in traces] == [("vllm", "vllm ")] * 2
    assert all(step.completion.token_ids for trace in traces for step in trace.steps)
    assert "vllm" in (tmp_path / "run" / RUN_FILE).read_text()


BROKEN = "sys.modules['vllm'] = None"
"""What importing it meets where it is not installed."""


@pytest.mark.slow
def test_without_vllm_transformers_speaks_if_that_was_asked_for(models: Path, tmp_path: Path) -> None:
    done = evaluated(models / "tiny", tmp_path / "run", "--fallback", "hf", before=BROKEN)

    assert done.returncode == 0, done.stderr
    headers = [each.header for each in read_traces(tmp_path / "run")]
    assert [(each.policy, each.engine[:13]) for each in headers] == [("hf", "transformers ")] * 2
    assert "vLLM is not installed" in done.stdout + done.stderr


@pytest.mark.slow
def test_without_vllm_the_command_ends_with_one_line_that_names_hf(models: Path, tmp_path: Path) -> None:
    done = evaluated(models / "tiny", tmp_path / "run", before=BROKEN)

    assert done.returncode == 2
    assert "vLLM is not installed; --llm-provider hf" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
