"""The flags of `repo-agent train sft` and `train dpo`, and what bad input gets: one line and exit code 2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs the extra 'train'")

import repo_agent
from tests.training_world import make_tiny, pair_rows, record, step_rows, train
from trainers.train_cli import SUBCOMMANDS
from trainers.train_settings import LOCAL_DEFAULTS, TrainSettings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return step_rows(tmp_path / "sft.jsonl")


def _said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an error."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("repo-agent: error: ")]
    assert len(lines) == 1
    return lines[0]


def _copy_without_eos(tiny: Path, target: Path) -> Path:
    shutil.copytree(tiny, target)
    path = target / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "eos_token": None}))
    return target


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--lora-targets", "q_proj,nowhere"],
            "--lora-targets nowhere: the model has no such layer",
        ),
        (["--lora-targets", "lm_head"], "no such layer to adapt; there are down_proj, gate_proj, k_proj"),
        (["--seed", "4294967296"], "argument --seed: must be less than 2**32"),
        (["--max-length", "9999"], "--max-length 9999: the model takes 512 tokens"),
        (["--max-length", "20"], "all 12 rows are over --max-length 20; the longest has"),
        (["--max-packed-tokens", "99"], "more than --max-packed-tokens 99: raise it"),
        (["--device", "cuda"], "--device cuda: torch finds no such device here"),
        (["--report-to", "wandb"], "--report-to wandb: it is not installed"),
        (["--batch-size", "0"], "must be at least 1"),
        (["--learning-rate", "0"], "must be more than 0"),
        (["--watch"], "--watch is for --backend together"),
        (["--model", "nowhere/at/all"], "there is no such directory"),
        (["--model", "owner/name"], "--model owner/name: its tokenizer cannot be loaded: "),
        (["--model", ""], "--model is missing"),
        (["--beta", "0.1"], "unrecognized arguments: --beta 0.1"),
    ],
)
def test_a_wrong_flag_gets_one_line(
    tiny: Path,
    rows: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    said: str,
) -> None:
    import torch

    import trainers.train_settings as settings

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    assert train("sft", tiny, rows, tmp_path / "r", *flags) == 2
    assert said in _said(capsys)


def test_a_file_of_the_other_kind_gets_one_line(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = pair_rows(tmp_path / "dpo.jsonl")
    assert train("sft", tiny, pairs, tmp_path / "r") == 2
    assert "say train dpo for this one" in _said(capsys)
    assert not (tmp_path / "r").exists()


def test_a_tokenizer_that_ends_no_message_gets_one_line(
    tiny: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("sft", _copy_without_eos(tiny, tmp_path / "base"), rows, tmp_path / "r") == 2
    assert "has no end-of-sequence token" in _said(capsys)


def test_weights_that_do_not_fit_the_model_get_one_line(
    tiny: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny, base)
    (base / "model.safetensors").write_bytes(b"torn")
    assert train("sft", base, rows, tmp_path / "r") == 2
    assert "the model cannot be loaded" in _said(capsys)


def test_files_that_lack_weights_get_one_line(
    tiny: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    base = tmp_path / "base"
    shutil.copytree(tiny, base)
    weights = load_file(base / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    assert train("sft", base, rows, tmp_path / "r") == 2
    assert "1 of its weights are not in its files (model.layers.1.mlp.up_proj.weight" in _said(capsys)


def test_a_run_without_a_directory_is_called_after_its_suffix(
    tiny: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = ["--dataset", str(rows), "--model", str(tiny), "--suffix", "mine", "--max-steps", "1"]
    assert repo_agent.main(["train", "sft", *flags, "--report-to", "none", "--device", "cpu"]) == 0
    settings = TrainSettings.model_validate(record(tmp_path / "runs/train-mine")["settings"])
    assert (settings.batch_size, settings.learning_rate, settings.epochs) == (8, 2e-4, 3)


def test_resume_asks_for_the_directory(rows: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert repo_agent.main(["train", "sft", "--dataset", str(rows), "--model", str(tiny), "--resume"]) == 2
    assert "--resume needs --output-dir" in _said(capsys)


def test_a_suffix_is_no_path(rows: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "sft", "--dataset", str(rows), "--model", str(tiny), "--suffix", "../a"]
    assert repo_agent.main(words) == 2
    assert "--suffix ../a: it names a directory in runs/" in _said(capsys)


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_help_has_a_line_for_every_flag_and_groups(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        repo_agent.main(["train", kind, "--help"])
    said = capsys.readouterr().out
    for group in ("steps:", "what is trained:", "rows and packing:", "this machine:", "training at a service:"):
        assert group in said
    assert ("--beta" in said) == (kind == "dpo")


@pytest.mark.parametrize("flag", [["--packing", "none"], ["--eval-dataset", "x"], ["--save-steps", "3"]])
def test_a_flag_that_means_nothing_to_a_service_is_refused_there(
    rows: Path, flag: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "sft", "--backend", "together", "--dataset", str(rows), "--model", "m", *flag]
    assert repo_agent.main(words) == 2
    assert f"{flag[0]} means nothing to a service" in _said(capsys)


def test_the_service_gets_the_flags_with_their_defaults(rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import trainers.train_cli as cli

    seen: dict[str, Any] = {}

    def run(method: str, args: Any) -> int:
        seen.update(method=method, **vars(args))
        return 0

    monkeypatch.setattr(cli, "run_service_job", run)
    words = ["train", "dpo", "--backend", "together", "--dataset", str(rows), "--model", "m", "--suffix", "s"]
    assert repo_agent.main(words) == 0
    assert (seen["method"], seen["batch_size"], seen["learning_rate"], seen["beta"]) == ("dpo", "max", 2e-5, 0.1)
    assert (seen["lora"], seen["lora_r"], seen["output_dir"]) == (True, None, None)


def test_every_local_flag_has_its_default_in_the_settings_and_none_in_the_parser() -> None:
    import argparse

    for kind in ("sft", "dpo"):
        parser = argparse.ArgumentParser()
        SUBCOMMANDS[kind].add_flags(parser)
        given = vars(parser.parse_args(["--dataset", "x"]))
        assert [name for name in LOCAL_DEFAULTS if given.get(name) is not None] == []
        left = {name for name, value in given.items() if value is None} - LOCAL_DEFAULTS.keys()
        shared = {"batch_size", "learning_rate", "lora_r", "lora_alpha", "output_dir"}
        assert left == shared | {"from_job", "poll_seconds", "service_url"}
