"""`repo-agent train grpo` as it is used: results, traces that replay, resumption, bad input."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'train'")

import repo_agent
from harness.errors import UsageError
from harness.model_files import find_model
from tests.grpo_world import ARITH, FORGETFUL, grpo, make_model, minibugs, odd_is_right, steps, traces
from tests.training_world import record, result
from trainers.train_watch import Watch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:TRL currently supports vLLM versions:UserWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),  # vLLM's import
]
RUN = (*ARITH, "--max-steps", "4", "--save-steps", "2", "--curriculum")
VLLM = ("--engine", "vllm", "--num-workers", "8", "--max-steps", "4", "--max-context", "1024")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def _odd(monkeypatch: pytest.MonkeyPatch) -> None:
    odd_is_right(monkeypatch)


@pytest.fixture(scope="module")
def whole(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        odd_is_right(patch)
        assert grpo(tiny, run, *RUN) == 0
    return run


def _weights(run: Path) -> bytes:
    return (run / "adapter" / "adapter_model.safetensors").read_bytes()


def test_a_run_leaves_an_adapter_metrics_and_traces(tiny: Path, whole: Path) -> None:
    found, ended = find_model(str(whole)), result(whole)
    assert (found.base, found.adapter) == (str(tiny), whole / "adapter")
    assert (ended["kind"], ended["steps"], ended["rollouts"], ended["suite"]) == ("grpo", 4, 32, "arith:train")
    assert record(whole)["settings"]["rewards"]["score"] == 1
    lines, stored = steps(whole), traces(whole)
    logged = {"rewards/score/mean", "rewards/answer/mean", "entropy", "clip_ratio/region_mean", "sampler_gap/mean"}
    logged |= {"groups/without_signal", "rollouts/truncated", "completions/mean_length", "curriculum/resting"}
    assert all(logged <= line.keys() for line in lines)
    assert any(line["grad_norm"] > 0 for line in lines)
    assert len(stored) == 32 and {trace.header.index for trace in stored} == set(range(16))
    assert sorted(Counter(trace.header.task for trace in stored).values()) == [4] * 8
    assert not list(whole.rglob("README.md"))


def test_an_interrupted_run_goes_on_to_the_same_rollouts_and_weights(
    tiny: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(self: Watch, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            signal.raise_signal(signal.SIGINT)

    run = tmp_path / "r"
    with monkeypatch.context() as patch:
        patch.setattr(Watch, "on_step_begin", begin)
        assert grpo(tiny, run, *RUN) == 130
    with pytest.raises(UsageError, match="has not ended: say --resume"):
        find_model(str(run))
    assert grpo(tiny, run, *RUN, "--resume") == 0
    assert steps(run) == steps(whole)
    assert _weights(run) == _weights(whole)


def test_a_run_that_was_killed_forgets_the_rollouts_after_its_checkpoint(
    tiny: Path, whole: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(whole, tmp_path / "r")
    shutil.rmtree(run / "checkpoints" / "checkpoint-4")
    shutil.rmtree(run / "adapter")
    (run / "result.json").unlink()
    with (run / "traces" / "traces.jsonl").open("a") as log:
        log.write('{"torn')
    assert grpo(tiny, run, *RUN, "--resume") == 0
    assert steps(run) == steps(whole)
    said = [[[step.completion.text for step in trace.steps] for trace in traces(each)] for each in (run, whole)]
    assert said[0] == said[1]
    assert _weights(run) == _weights(whole)


def test_a_run_with_other_settings_is_not_continued(
    tiny: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grpo(tiny, whole, *RUN, "--temperature", "0.7", "--resume") == 2
    assert "other settings (temperature: 1.0 there, 0.7 here)" in capsys.readouterr().err


def test_a_run_that_ended_before_its_first_checkpoint_can_be_begun_again_otherwise(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("trainers.grpo.TOLERANCE", {"float32": -1.0})
        assert grpo(tiny, tmp_path / "r", *ARITH) == 3
    assert traces(tmp_path / "r")
    assert grpo(tiny, tmp_path / "r", *ARITH, "--temperature", "0.9") == 0
    assert {trace.header.sampling.temperature for trace in traces(tmp_path / "r")} == {0.9}


def test_several_turns_on_repair_tasks_replay(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = (*minibugs(tmp_path), "--reward", "dense", "--num-workers", "4")
    assert grpo(tiny, tmp_path / "r", *flags) == 0
    assert [line["rollouts/turns"] for line in steps(tmp_path / "r")] == [3, 3]
    assert 0 < steps(tmp_path / "r")[0]["rewards/passing_tests/mean"] < 1
    assert repo_agent.main(["replay", str(tmp_path / "r" / "traces"), "--sandbox", "local"]) == 0
    assert "16 rollouts, 48 steps replayed, 0 diverged" in capsys.readouterr().out


def test_a_whole_model_is_trained_and_evaluated_by_its_run(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "r"
    assert grpo(tiny, run, *ARITH, "--no-lora", "--num-iterations", "2") == 0
    assert find_model(str(run)).base == str(run / "model")
    assert len(traces(run)) == 8
    flags = ["--suite", "arith:test", "--limit", "2", "--max-tokens", "8", "--trace-dir", str(tmp_path / "eval")]
    assert repo_agent.main(["eval", "--llm-provider", "hf", "--model", str(run), *flags]) == 0


def test_an_adapter_that_is_trained_further_is_its_own_reference(tiny: Path, whole: Path, tmp_path: Path) -> None:
    flags = ("--kl-beta", "0.5", "--max-steps", "3", "--save-steps", "2")
    assert grpo(whole, tmp_path / "r", *ARITH, *flags) == 0
    lines = steps(tmp_path / "r")
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-9) and lines[-1]["kl"] > 0


def test_gradient_checkpointing_and_packing_change_no_step(tiny: Path, whole: Path, tmp_path: Path) -> None:
    assert grpo(tiny, tmp_path / "a", *RUN, "--gradient-checkpointing") == 0
    assert grpo(tiny, tmp_path / "b", *RUN, "--packing", "none") == 0
    for run in (tmp_path / "a", tmp_path / "b"):
        for name in ("reward", "entropy", "grad_norm"):
            assert [line[name] for line in steps(run)] == pytest.approx([line[name] for line in steps(whole)], rel=1e-3)


def test_a_template_that_rewrites_history_is_refused_where_episodes_have_turns(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    (model / "chat_template.jinja").write_text(FORGETFUL)
    assert grpo(model, tmp_path / "r", *minibugs(tmp_path)) == 2
    assert "rewrites earlier messages" in capsys.readouterr().err
    assert grpo(model, tmp_path / "one-turn", *minibugs(tmp_path), "--max-iters", "1", "--max-steps", "1") == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--num-generations", "1"], "must be at least 2"),
        (["--prompts-per-step", "99"], "there are only 12 tasks"),
        (["--micro-batch-size", "3"], "does not divide the 8 rollouts"),
        (["--temperature", "0"], "rollouts of a group would all be the same"),
        (["--reward", "dense"], "questions have none"),
        (["--reward-weight", "passing_tests=1"], "have no such reward"),
        (["--reward-weight", "luck=1"], "not NAME=WEIGHT with one of"),
        (["--engine", "vllm", "--no-lora"], "train with --lora"),
        (["--sandbox", "local"], "graded without a sandbox"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_written(
    tiny: Path, tmp_path: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grpo(tiny, tmp_path / "r", *ARITH, *flags) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_vllm_that_is_not_installed_is_said_in_one_line(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grpo(tiny, tmp_path / "r", *ARITH, "--engine", "vllm") == 2
    assert "vLLM is not installed; --engine hf" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_speaks_with_the_adapter_of_each_step(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grpo(tiny, tmp_path / "r", *ARITH, *VLLM) == 0
    lines = steps(tmp_path / "r")
    assert sum(line["grad_norm"] > 0 for line in lines) >= 3
    assert all(line["sampler_gap/max"] < 1e-3 for line in lines)
    assert not (tmp_path / "r" / "sampler").exists()
    assert os.environ.get("LD_PRELOAD") is None
    monkeypatch.setattr("harness.policies.vllm_policy.VllmEngine.use_adapter", _only_the_first)
    assert grpo(tiny, tmp_path / "stale", *ARITH, *VLLM) == 3
    assert "the sampler does not speak with the trained weights" in capsys.readouterr().err


def _only_the_first(self: Any, adapter: Path) -> None:
    from vllm.lora.request import LoRARequest

    if not self._adapter:
        self._adapter = LoRARequest("first", 1, str(adapter))
        self._engine.add_lora(self._adapter)
