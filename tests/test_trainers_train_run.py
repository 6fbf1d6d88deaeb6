"""Run directories: interruption, death, resumption, and ends without success."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'train'")

from harness.errors import UsageError
from harness.model_files import find_model
from tests.training_world import make_tiny, metrics, record, result, step_rows, train
from trainers.train_run import TrainRun
from trainers.train_watch import Watch

pytestmark = pytest.mark.slow
FLAGS = ("--epochs", "3", "--learning-rate", "1e-3", "--lora-dropout", "0.1", "--save-steps", "2")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return step_rows(tmp_path_factory.mktemp("rows") / "sft.jsonl")


@pytest.fixture(scope="module")
def whole(tiny: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert train("sft", tiny, rows, run, *FLAGS) == 0
    return run


def _interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    def begin(self: Watch, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == step:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Watch, "on_step_begin", begin)


def _same_weights(one: Path, other: Path) -> bool:
    return (one / "adapter_model.safetensors").read_bytes() == (other / "adapter_model.safetensors").read_bytes()


def test_an_interrupted_run_goes_on_to_the_same_losses_and_weights(
    tiny: Path,
    rows: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "r"
    with monkeypatch.context() as patch:
        _interrupt_at(patch, 2)
        assert train("sft", tiny, rows, run, *FLAGS) == 130
    assert "the same command with --resume goes on" in capsys.readouterr().err
    assert metrics(run) == metrics(whole)[:3]
    with pytest.raises(UsageError, match="has not ended: say --resume"):
        find_model(str(run))
    assert train("sft", tiny, rows, run, *FLAGS, "--resume") == 0
    assert metrics(run) == metrics(whole)
    assert _same_weights(run / "adapter", whole / "adapter")
    assert {**result(run), "seconds": 0} == {**result(whole), "seconds": 0}
    assert len(record(run)["resumed"]) == 1


def test_a_killed_run_loses_only_what_came_after_its_last_checkpoint(
    tiny: Path, rows: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "r"
    _kill_after(tiny, rows, run, 5)
    kept = TrainRun(run).last_checkpoint()
    assert kept is not None and kept.name in ("checkpoint-4", "checkpoint-6", "checkpoint-8")
    (run / "checkpoints/checkpoint-9").mkdir()  # one that was being written
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')
    assert train("sft", tiny, rows, run, *FLAGS, "--resume") == 0
    assert metrics(run) == metrics(whole)
    assert _same_weights(run / "adapter", whole / "adapter")


def test_figures_go_on_where_rows_are_evaluated_too(
    tiny: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (*FLAGS, "--eval-dataset", str(rows))
    assert train("sft", tiny, rows, tmp_path / "whole", *flags) == 0
    per_epoch = len(metrics(tmp_path / "whole")) // 3 - 1
    for step in (per_epoch - 1, per_epoch):
        with monkeypatch.context() as patch:
            _interrupt_at(patch, step)
            assert train("sft", tiny, rows, tmp_path / str(step), *flags) == 130
        assert train("sft", tiny, rows, tmp_path / str(step), *flags, "--resume") == 0
        assert _tokens(tmp_path / str(step)) == _tokens(tmp_path / "whole")


def _tokens(run: Path) -> list[tuple[int, float | None]]:
    """None: of a line of an evaluation."""
    return [(line["step"], line.get("num_tokens")) for line in metrics(run)]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: "\0\0\n" + text, "metrics.jsonl:1 is no line of metrics"),
        (lambda text: text.replace("\n", "\n[]\n", 1), "metrics.jsonl:2 is no line of metrics"),
        (lambda text: text.rpartition("{")[0], "metrics.jsonl has lost step 9, which a checkpoint has"),
    ],
)
def test_a_run_whose_metrics_are_spoilt_is_not_continued(
    tiny: Path,
    rows: Path,
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[str], str],
    said: str,
) -> None:
    run = _unfinished(whole, tmp_path / "r")
    (run / "metrics.jsonl").write_text(spoil((run / "metrics.jsonl").read_text()))
    assert train("sft", tiny, rows, run, *FLAGS, "--resume") == 2
    assert said in capsys.readouterr().err


def test_a_run_is_not_continued_with_another_model_at_the_same_place(
    tiny: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Path(shutil.copytree(tiny, tmp_path / "model"))
    assert train("sft", place, rows, tmp_path / "r", *FLAGS, "--max-steps", "1") == 0
    _unfinished(tmp_path / "r", tmp_path / "s")
    shutil.rmtree(place)
    make_tiny(place, seed=1)
    assert train("sft", place, rows, tmp_path / "s", *FLAGS, "--max-steps", "1", "--resume") == 2
    assert "belongs to a run with other settings (model_sha256: " in capsys.readouterr().err


def _unfinished(run: Path, to: Path) -> Path:
    """A copy that was killed just before its result was written."""
    shutil.copytree(run, to)
    (to / "result.json").unlink()
    return to


def _kill_after(tiny: Path, rows: Path, run: Path, steps: int) -> None:
    """Train in a process whose steps are slow, and kill it."""
    code = (
        "import sys, time; from pathlib import Path; from tests.training_world import train\n"
        "from trainers.train_watch import Watch\n"
        "Watch.on_step_begin = lambda *args, **kwargs: time.sleep(0.3)\n"
        "train('sft', *map(Path, sys.argv[1:4]), *sys.argv[4:])\n"
    )
    words = [sys.executable, "-c", code, str(tiny), str(rows), str(run), *FLAGS]
    process = subprocess.Popen(words, cwd=Path(__file__).parents[1], env={**os.environ, "HF_HUB_OFFLINE": "1"})
    try:
        while process.poll() is None and len(list(TrainRun(run).metric_lines())) < steps:
            time.sleep(0.05)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL


def test_other_settings_are_refused_by_name(
    tiny: Path, rows: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("sft", tiny, rows, whole, *FLAGS, "--resume", "--lora-r", "4", "--seed", "1") == 2
    said = capsys.readouterr().err
    assert "lora_r: 16 there, 4 here; seed: 0 there, 1 here" in said


def test_a_run_that_has_ended_says_so(tiny: Path, rows: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (whole / "result.json").stat().st_mtime_ns
    assert train("sft", tiny, rows, whole, *FLAGS, "--resume") == 0
    assert "this training has ended before. 9 steps" in capsys.readouterr().out
    assert (whole / "result.json").stat().st_mtime_ns == before


def test_a_run_is_not_begun_again_without_resume(
    tiny: Path, rows: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("sft", tiny, rows, whole, *FLAGS) == 2
    assert "and it has ended: choose another --output-dir or --suffix" in capsys.readouterr().err


def test_an_unfinished_run_is_continued_only_if_that_is_said(
    tiny: Path, rows: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("sft", tiny, rows, _unfinished(whole, tmp_path / "r"), *FLAGS) == 2
    assert "say --resume to continue it" in capsys.readouterr().err


def test_a_run_has_no_model_card_in_which_nothing_is_filled_in(whole: Path) -> None:
    assert list(whole.rglob("README.md")) == []


def test_a_directory_with_something_else_is_left_alone(
    tiny: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert train("sft", tiny, rows, tmp_path) == 2
    assert "holds something else than a training run" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_record_names_data_card_versions_and_command(tiny: Path, tmp_path: Path) -> None:
    import trl

    rows = step_rows(tmp_path / "sft.jsonl")
    (tmp_path / "sft.card.json").write_text("{}")
    assert train("sft", tiny, rows, tmp_path / "r", "--max-steps", "1") == 0
    found = record(tmp_path / "r")
    assert found["versions"]["trl"] == trl.__version__
    assert found["command"].startswith("repo-agent train sft --dataset ")
    assert found["data"]["card"]["path"] == str(tmp_path / "sft.card.json")
    assert found["data"]["sha256"] == found["settings"]["dataset_sha256"]
    assert (found["batches"]["trees"], found["batches"]["rows_per_batch"]) == (3, 4)


def test_only_two_checkpoints_are_kept(whole: Path) -> None:
    assert sorted(path.name for path in whole.glob("checkpoints/checkpoint-*")) == ["checkpoint-8", "checkpoint-9"]


def test_a_loss_that_is_no_number_stops_the_training(
    tiny: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--no-lora", "--learning-rate", "1e38", "--warmup-ratio", "0", "--epochs", "9"]
    assert train("sft", tiny, rows, tmp_path / "r", *flags) == 1
    said = capsys.readouterr().err
    assert "is nan" in said and "lower --learning-rate" in said
    assert not (tmp_path / "r/result.json").exists()


def test_out_of_memory_names_what_to_lower(
    tiny: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch
    from trl import SFTTrainer

    def training_step(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(SFTTrainer, "training_step", training_step)
    assert train("sft", tiny, rows, tmp_path / "r") == 2
    said = capsys.readouterr().err
    assert "out of memory on cpu: lower --batch-size (now 4" in said and "--gradient-checkpointing" in said
    monkeypatch.undo()
    assert train("sft", tiny, rows, tmp_path / "r", "--batch-size", "2", "--max-steps", "1") == 0


def test_batch_size_max_stops_where_memory_ends(
    tiny: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from trainers.sft import StepTrainer

    inner = StepTrainer.compute_loss

    def compute_loss(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if len(inputs["input_ids"]) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(StepTrainer, "compute_loss", compute_loss)
    assert train("sft", tiny, rows, tmp_path / "r", "--batch-size", "max", "--packing", "none", "--max-steps", "1") == 0
    assert record(tmp_path / "r")["batches"]["batch_size"] == 4


def test_two_processes_do_not_train_in_one_directory(
    tiny: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import fcntl

    (tmp_path / "r").mkdir()
    descriptor = os.open(tmp_path / "r", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert train("sft", tiny, rows, tmp_path / "r") == 2
    os.close(descriptor)
    assert "another process trains in" in capsys.readouterr().err


def test_a_run_can_be_moved(tiny: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "elsewhere")
    found = find_model(str(tmp_path / "elsewhere"))
    assert found.base == str(tiny) and found.adapter == tmp_path / "elsewhere/adapter"
