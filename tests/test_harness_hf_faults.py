"""The `hf` policy at its limits, with models that cannot be used, and as the command plays it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra 'train'")
pytest.importorskip("peft", reason="needs the extra 'train'")

import torch
from transformers import AutoTokenizer

from harness.budget import Budget
from harness.errors import InfrastructureError, RolloutEnd, UsageError
from harness.policies.hf_policy import HfSettings, HfSource
from harness.policies.local_engine import out_of_memory
from harness.records import FinishReason, StopReason
from harness.trace_reader import read_traces
from repo_agent import main
from tests.local_models import (
    Open,
    change_weights,
    copy,
    learnt_places,
    lively_model,
    prompt_ids,
    said,
    sources,
    torn_adapter,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lively_model(tmp_path_factory.mktemp("hf") / "tiny")


@pytest.fixture
def opened(model: Path) -> Iterator[Open]:
    with sources(model) as start:
        yield start


# ---- limits


def test_an_answer_is_cut_to_what_fits_and_a_full_context_ends_the_rollout(model: Path, opened: Open) -> None:
    length = prompt_ids(model, "hello").shape[1]
    cut = said(opened(max_context=length + 5), "hello")
    assert (len(cut.token_ids or ()), cut.finish_reason) == (5, FinishReason.LENGTH)
    with pytest.raises(RolloutEnd) as ended:
        said(opened(max_context=length), "hello")
    assert ended.value.reason is StopReason.CONTEXT_FULL


def test_the_models_own_context_is_the_limit_where_none_is_given(opened: Open) -> None:
    with pytest.raises(RolloutEnd, match="context_full"):
        said(opened(), "abc " * 9000)


def test_tokens_count_against_the_budget(opened: Open) -> None:
    budget = Budget(max_tokens=20)
    source = opened(budget=budget)
    first = said(source, "hello")
    assert budget.tokens == (first.usage.prompt_tokens or 0) + (first.usage.completion_tokens or 0)
    with pytest.raises(RolloutEnd, match="budget"):
        said(source, "hello")


def test_a_row_that_has_ended_at_its_last_place_waits_there_for_the_others(model: Path, tmp_path: Path) -> None:
    place = learnt_places(model, tmp_path / "gpt2", places=128)
    source = HfSource(str(place), HfSettings("cpu"), Budget())
    try:
        with ThreadPoolExecutor(2) as pool:
            long = pool.submit(said, source, "def f(x): return " * 10, max_tokens=5)
            short = pool.submit(said, source, "a", max_tokens=90)
            lengths = [len(each.result().token_ids or ()) for each in (long, short)]
        alone = said(source, "a", max_tokens=90)
    finally:
        source.close()
    assert lengths == [5, 90]
    assert alone.token_ids == short.result().token_ids


# ---- faults


def test_close_ends_a_generation_under_way(opened: Open) -> None:
    source = opened()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(said, source, "hello", max_tokens=6000)
        time.sleep(0.5)
        began = time.monotonic()
        source.close()
        error = future.exception(5)
    assert isinstance(error, InfrastructureError)
    assert str(error) == "model calls were stopped"
    assert time.monotonic() - began < 5
    assert "model-engine" not in {thread.name for thread in threading.enumerate()}


def test_torchs_own_error_for_too_little_memory_is_known() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**50)
    assert out_of_memory(raised.value)


def test_weights_that_give_no_numbers_are_said_and_never_recorded(model: Path, opened: Open, tmp_path: Path) -> None:
    copy(model, tmp_path / "broken")
    change_weights(tmp_path / "broken", lambda weight: weight.fill_(float("nan")))
    with pytest.raises(InfrastructureError, match="no numbers as probabilities"):
        said(opened(tmp_path / "broken"), "hello")


def test_a_tokenizer_without_a_template_gets_the_default_one_which_is_announced(
    model: Path, opened: Open, tmp_path: Path
) -> None:
    copy(model, tmp_path / "bare")
    (tmp_path / "bare" / "chat_template.jinja").unlink()
    source = opened(tmp_path / "bare")
    assert source.info.notices == (
        f"the tokenizer of {tmp_path / 'bare'} has no chat template: the default one is used",
    )
    assert said(source, "hello").token_ids


def test_weights_that_are_not_complete_are_refused(model: Path, opened: Open, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy(model, tmp_path / "part")
    weights = load_file(tmp_path / "part" / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "part" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"not complete: 1 missing, like model\.layers\.1\.mlp\.up_proj\.weight"):
        opened(tmp_path / "part")


def test_an_adapter_whose_weights_are_not_complete_is_refused(model: Path, opened: Open, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    torn_adapter(model, adapter)
    with pytest.raises(UsageError, match=r"2 weights of the adapter .* have no counterpart"):
        opened(adapter)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(model: Path, opened: Open, tmp_path: Path) -> None:
    copy(model, tmp_path / "more")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["one_more"])
    tokenizer.save_pretrained(tmp_path / "more")
    with pytest.raises(UsageError, match="has 1025 tokens and the model 1024"):
        opened(tmp_path / "more")


def test_weights_that_cannot_be_read_are_one_line(model: Path, opened: Open, tmp_path: Path) -> None:
    copy(model, tmp_path / "torn")
    (tmp_path / "torn" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UsageError, match=r"^the model .* cannot be loaded: [^\n]+$"):
        opened(tmp_path / "torn")


def test_a_directory_without_a_model_is_one_line(opened: Open, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no model in it"):
        opened(tmp_path)


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_a_device_that_is_not_there_is_one_line(model: Path, device: str) -> None:
    with pytest.raises(UsageError, match=rf"^--device {device}: torch cannot use it: [^\n]+$"):
        HfSource(str(model), HfSettings(device), Budget())


def test_a_hub_that_cannot_be_reached_is_one_line_and_exit_code_2() -> None:
    surroundings = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "repo_agent", "eval", "--llm-provider", "hf", "--model", "someone/some-model"]
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings, timeout=120)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "someone/some-model is no directory here, and as a name on the Hugging Face hub it cannot be loaded" in line


# ---- the command


def test_eval_plays_a_local_model_and_the_trace_says_which_engine_spoke(model: Path, tmp_path: Path) -> None:
    flags = ["--llm-provider", "hf", "--model", str(model), "--device", "cpu", "--max-tokens", "16", "--max-iters", "3"]
    sampling = ["--temperature", "0.8", "--limit", "2", "--sandbox", "local", "--trace-dir", str(tmp_path / "run")]
    assert main(["eval", *flags, *sampling]) == 0
    traces = list(read_traces(tmp_path / "run"))
    assert len(traces) == 2
    for trace in traces:
        assert (trace.header.policy, trace.header.model) == ("hf", str(model))
        assert trace.header.engine.startswith("transformers ")
        assert trace.header.engine.endswith(", float32, cpu")
        for step in trace.steps:
            assert len(step.completion.token_ids or ()) == len(step.completion.logprobs or ()) == 16
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert run["versions"]["engine"] == report["versions"]["engine"] == traces[0].header.engine
    assert main(["eval", *flags, *sampling, "--resume"]) == 0


def test_a_run_is_not_continued_with_another_model_at_the_same_place(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy(model, tmp_path / "model")
    flags = ["--llm-provider", "hf", "--model", str(tmp_path / "model"), "--max-tokens", "4", "--max-iters", "1"]
    words = ["eval", *flags, "--limit", "1", "--sandbox", "local", "--trace-dir", str(tmp_path / "run")]
    assert main(words) == 0
    change_weights(tmp_path / "model", lambda weight: weight.mul_(2))
    assert main([*words, "--resume"]) == 2
    assert "belongs to another configuration (model_sha256: " in capsys.readouterr().err
