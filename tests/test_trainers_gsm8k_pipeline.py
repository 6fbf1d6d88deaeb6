"""The pipeline on a tiny model: what each stage leaves, that it learns, and that it goes on where it was left."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'train'")

from harness.model_files import find_model
from harness.statistics import wilson_interval
from harness.trace_reader import read_traces
from suites.gsm8k.formats import FORMATS
from tests.gsm8k_world import SMALL, VARIABLES, by_text, lines, run
from trainers.data_check import check_file
from trainers.formats import RowFormat
from trainers.gsm8k.evaluate import COLUMNS

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:TRL currently supports vLLM versions:UserWarning")]
ROOT = Path(__file__).parents[1]
QUICK = {**SMALL, "GSM8K_MAX_TOKENS": "56", "GSM8K_EPOCHS": "1", "GSM8K_GRPO_STEPS": "1", "GSM8K_LORA_R": "4"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from trainers.tiny_model import TinyShape, init_tiny

    directory = tmp_path_factory.mktemp("models") / "tiny"
    init_tiny(directory, 0, TinyShape(512, 64, 3, 2, 192, 512), text="arith")
    return directory


@pytest.fixture(scope="module")
def prep(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learnt the format, and hardly any arithmetic."""
    directory = tmp_path_factory.mktemp("prep") / "prep_sft"
    with pytest.MonkeyPatch.context() as patch:
        settle(patch)
        flags = ["--no-lora", "--learning-rate", "3e-3", "--epochs", "20", "--prep-train-samples", "64"]
        assert run("sft", "--stage", "prep", "--base-model", str(tiny), "--output-dir", str(directory), *flags) == 0
    return directory


def settle(patch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        patch.delenv(name, raising=False)
    for name, value in QUICK.items():
        patch.setenv(name, value)
    patch.setenv("GSM8K_DEVICE", "cpu")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch)


def table(directory: Path, stage: str) -> list[dict[str, str]]:
    (path,) = directory.glob(f"debug/{stage}_*.csv")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def metrics(directory: Path, stage: str) -> dict[str, str]:
    (path,) = directory.glob(f"debug/{stage}_*_metrics.txt")
    return dict(line.split(": ", 1) for line in path.read_text(encoding="utf-8").splitlines())


def config(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return found


def test_prep_sft_teaches_the_format_and_measures_itself(tiny: Path, prep: Path, tmp_path: Path) -> None:
    assert run("eval", "--model-path", str(tiny), "--output-dir", str(tmp_path), "--output-file", "base.csv") == 0
    assert {row["exact"] for row in table(tmp_path, "base")} == {"0"}
    assert (tmp_path / "base.csv").read_bytes() == next(tmp_path.glob("debug/*.csv")).read_bytes()
    rows = table(prep, "prep_sft")
    assert tuple(rows[0]) == COLUMNS and len(rows) == 8
    assert sum(int(row["exact"]) for row in rows) >= 4
    for row in rows:
        read = FORMATS["solution"].read(row["response"])
        assert (row["answer"], row["reasoning"], row["exact"]) == (
            read.answer or "",
            read.reasoning,
            str(int(read.exact)),
        )
        assert by_text()[row["question"]].gold == row["gold"]


def test_the_figures_are_those_of_the_table_with_their_intervals(prep: Path) -> None:
    rows, found = table(prep, "prep_sft"), metrics(prep, "prep_sft")
    for name, column in (
        ("accuracy", "correct"),
        ("answered", "answered"),
        ("thinking", "thinking"),
        ("exact", "exact"),
    ):
        rate = sum(int(row[column]) for row in rows) / len(rows)
        expected = (rate, *wilson_interval(rate, len(rows)))
        written = [float(found[key]) for key in (name, f"{name}_low", f"{name}_high")]
        assert written == pytest.approx(expected, abs=1e-5)
    assert (found["stage"], found["samples"], found["train_samples"]) == ("prep_sft", "8", "64")
    (path,) = prep.glob("debug/*.csv")
    assert path.stem == f"prep_sft_{found['run_id']}"


def test_a_stage_leaves_a_training_run_whose_result_lies_in_model(prep: Path, tmp_path: Path) -> None:
    directory = tmp_path / "full_sft"
    assert run("sft", "--base-model", str(prep), "--output-dir", str(directory)) == 0
    found = find_model(str(directory))
    assert (found.adapter, found.base) == (directory / "model", str(prep / "model"))
    assert {"train.json", "metrics.jsonl", "checkpoints", "result.json", "rows.jsonl", "rows.card.md"} <= {
        each.name for each in directory.iterdir()
    }
    assert (config(directory)["stage"], config(directory)["train_samples"]) == ("full_sft", 12)
    assert config(directory)["model"] == str(prep)
    assert check_file(directory / "rows.jsonl").rows == {RowFormat.SFT_QUESTION: 12}
    assert metrics(directory, "full_sft")["train_samples"] == "12"


def test_r1_prompts_are_trained_and_played_as_they_are(tiny: Path, tmp_path: Path) -> None:
    directory = tmp_path / "r1"
    assert run("traces", "--style", "original", "--num-samples", "16", "--output-dir", str(tmp_path)) == 0
    given = ["--traces-file", str(tmp_path / "sft_original.jsonl"), "--base-model", str(tiny), "--no-lora"]
    assert run("sft", *given, "--output-dir", str(directory)) == 0
    assert check_file(directory / "rows.jsonl").rows == {RowFormat.SFT_TEXT: 12}
    assert metrics(directory, "r1_sft")["prompt_format"] == "r1"
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    for trace in read_traces(next(directory.glob("traces/*"))):
        prompt = trace.header.prompt[0].content
        assert trace.header.raw_prompt and prompt.endswith("Assistant: <think>")
        assert trace.steps[0].completion.usage.prompt_tokens == len(tokenizer.encode(prompt, add_special_tokens=False))


def test_grpo_trains_on_raw_prompts_too(tiny: Path, tmp_path: Path) -> None:
    argv = ["--base-model", str(tiny), "--no-lora", "--prompt-format", "r1", "--num-generations", "2"]
    assert run("grpo", *argv, "--prompts-per-step", "2", "--output-dir", str(tmp_path / "g")) == 0
    found = [trace for log in tmp_path.rglob("traces.jsonl") for trace in read_traces(log)]
    assert {trace.header.raw_prompt for trace in found} == {True}
    assert {trace.header.split for trace in found} == {"train", "test"}
    assert metrics(tmp_path / "g", "grpo")["prompt_format"] == "r1"


def test_traces_of_a_model_are_what_the_next_stage_trains_on(prep: Path, tmp_path: Path) -> None:
    traces = ["--grpo-model", str(prep), "--output-dir", str(tmp_path / "t"), "--max-attempts", "2"]
    assert run("traces", *traces) == 0
    file = tmp_path / "t/traces.jsonl"
    assert run("sft", "--traces-file", str(file), "--base-model", str(prep), "--output-dir", str(tmp_path / "s")) == 0
    rows = lines(tmp_path / "s/rows.jsonl")
    assert [row["prompt"][-1]["content"] for row in rows] == [row["question"] for row in lines(file)]
    assert metrics(tmp_path / "s", "traces_sft")["train_samples"] == "12"


def test_a_sweep_leaves_finished_stages_as_they_are(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [
        "--samples",
        "6",
        "4",
        "--root",
        str(tmp_path),
        "--base-model",
        str(tiny),
        "--traces",
        "--max-attempts",
        "1",
    ]
    assert run("sweep", *argv) == 0
    stages = {str(path.parent.parent.relative_to(tmp_path)) for path in tmp_path.rglob("debug/*.csv")}
    assert stages == {"base", "prep_sft"} | {
        f"{count}/{stage}" for count in (4, 6) for stage in ("full_sft", "grpo", "traces_sft")
    }
    assert {len(lines(tmp_path / f"{count}/traces/traces.jsonl")) for count in (4, 6)} == {4, 6}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    shutil.rmtree(tmp_path / "6/traces_sft")
    assert run("sweep", *argv) == 0
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} <= set((tmp_path / "6/traces_sft").rglob("*"))
    capsys.readouterr()
    assert run("sweep", *argv, "--epochs", "2") == 2
    assert "epochs: 1.0 there, 2.0 here" in capsys.readouterr().err


def test_expert_iteration_trains_filtered_and_unfiltered_beside_each_other(prep: Path, tmp_path: Path) -> None:
    argv = ["--base-model", str(prep), "--output-dir", str(tmp_path / "e"), "--rounds", "2", "--train-samples", "24"]
    assert run("exit", *argv, "--temperature", "0", "--max-attempts", "8") == 0
    for chosen in ("correct", "all"):
        for number in (1, 2):
            place = tmp_path / "e" / chosen / f"round_{number}"
            assert config(place)["model"] == str(prep) and config(place)["filter"] == chosen
            rows = lines(place / "rows.jsonl")
            golds = [by_text()[row["prompt"][-1]["content"]].gold for row in rows]
            right = [FORMATS["solution"].read(row["completion"][0]["content"]).number for row in rows] == golds
            assert right == (chosen == "correct")
        models = {
            trace.header.model for trace in read_traces(next((tmp_path / "e" / chosen).glob("samples_2/traces/*")))
        }
        assert models == {str(tmp_path / "e" / chosen / "round_1")}


def test_killed_expert_iteration_keeps_what_was_sampled(prep: Path, tmp_path: Path) -> None:
    argv = ["exit", "--filter", "all", "--rounds", "1", "--base-model", str(prep), "--batch-size", "2"]
    assert run(*argv, "--output-dir", str(tmp_path / "whole")) == 0
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "repo_agent.py"), "gsm8k", *argv, "--output-dir", str(killed)],
        env=os.environ.copy(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not any(b'"end"' in log.read_bytes() for log in killed.rglob("traces.jsonl")):
        time.sleep(0.01)
    process.kill()
    process.wait()
    (log,) = killed.rglob("traces.jsonl")
    kept = log.read_bytes()
    assert run(*argv, "--output-dir", str(killed), "--resume") == 0
    assert log.read_bytes().startswith(kept.rpartition(b"\n")[0])
    rows = [lines(place / "all/round_1/rows.jsonl") for place in (tmp_path / "whole", killed)]
    assert rows[0] == rows[1]


def test_an_ended_stage_is_refused_and_with_resume_only_measured_again(
    prep: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--no-lora", "--learning-rate", "3e-3", "--epochs", "20", "--prep-train-samples", "64"]
    argv = ["sft", "--stage", "prep", "--base-model", config(prep)["base_model"], "--output-dir", str(prep), *given]
    assert run(*argv) == 2
    assert "already holds a run" in capsys.readouterr().err
    before = (prep / "model/model.safetensors").stat().st_mtime_ns
    assert run(*argv, "--resume") == 0
    assert "8 of 8 responses were there before" in capsys.readouterr().err
    assert (prep / "model/model.safetensors").stat().st_mtime_ns == before
    assert run(*argv, "--resume", "--lora") == 2
    assert "lora: false there, true here" in capsys.readouterr().err


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed: it would speak")
def test_where_vllm_cannot_run_transformers_speaks_and_that_is_said(
    prep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["traces", "--style", "r1", "--model", str(prep), "--engine", "vllm", "--num-samples", "4"]
    assert run(*argv, "--output-dir", str(tmp_path), "--no-fallback") == 2
    assert "vLLM is not installed" in capsys.readouterr().err
    assert run(*argv, "--output-dir", str(tmp_path)) == 0
    assert "transformers speaks instead" in capsys.readouterr().err
    stats = json.loads((tmp_path / "sft_r1_all.jsonl.stats.json").read_text(encoding="utf-8"))
    rows = lines(tmp_path / "sft_r1_all.jsonl")
    assert stats["fallback"] == "hf instead of vllm" and {row["fallback"] for row in rows} == {"hf instead of vllm"}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["eval", "--model-path", "./nowhere"], "there is no such directory"),
        (["eval", "--stage", "a/b"], "letters, digits and _ only"),
        (["sft", "--stage", "prep", "--prep-train-samples", "0"], "PREP_TRAIN_SAMPLES is 0"),
        (["sft", "--base-model", "m", "--traces-file", "nowhere.jsonl"], "cannot read nowhere.jsonl"),
        (["grpo", "--engine", "openai"], "--engine hf or vllm, not openai"),
        (["sweep", "--samples", "5000"], "has 4000 questions"),
    ],
)
def test_bad_input_is_one_line(
    argv: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*argv) == 2
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == 1
