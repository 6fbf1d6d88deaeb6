"""`repo-agent slurm`: scripts that a shell takes as they are meant, and that a stand-in for `sbatch` runs."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from repo_agent import main
from trainers.slurm import Job, batch_script, interactive_line

ODD = 'o\'dd "$HOME" `id` $(id) ;&|\\ #*\n%j é'
SECRET = "sk-never-to-be-written"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def job(*arguments: str, gpus: int = 1, directory: Path = Path("/work")) -> Job:
    return Job("grpo", arguments, directory, gpus=gpus, partition="long", time="1-12:00")


def directives(script: str) -> list[str]:
    lines = [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]
    return [word for line in lines for word in shlex.split(line, comments=True)]


def executed(script: str) -> list[str]:
    """The arguments of the last command, as bash takes them."""
    shown = script.replace("\nexec ", "\nprintf '%s\\0' ").replace("\ncd ", "\n: ")
    done = subprocess.run(["bash"], input=shown, capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


@pytest.mark.parametrize("gpus", [0, 1, 4])
def test_a_script_is_valid_bash_whatever_the_arguments(gpus: int) -> None:
    script = batch_script(job("--output-dir", ODD, gpus=gpus, directory=Path("/a b/'c")), "/log", ["HOME"])
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert executed(script)[-4:] == ["gsm8k", "grpo", "--output-dir", ODD]


def test_what_slurm_is_asked_for() -> None:
    assert directives(batch_script(job(), "/logs/a b-%j.log", ["HOME", "HF_TOKEN"])) == [
        "--job-name=gsm8k-grpo",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=8",
        "--gpus-per-node=1",
        "--partition=long",
        "--time=1-12:00",
        "--output=/logs/a b-%j.log",
        "--export=HOME,HF_TOKEN",
        "--signal=B:INT@120",
    ]


def test_directives_come_before_every_command() -> None:
    lines = batch_script(job(), "/log", []).splitlines()
    assert lines[0] == "#!/bin/bash"
    assert [line.startswith("#SBATCH") for line in lines[1:]] == [True] * 10 + [False] * 3


def test_one_gpu_runs_the_pipeline_itself() -> None:
    assert executed(batch_script(job("--seed", "1"), "/log", [])) == [
        *(sys.executable, "-m", "repo_agent", "gsm8k", "grpo", "--seed", "1")
    ]


def test_several_gpus_get_a_process_each() -> None:
    pytest.importorskip("accelerate", reason="needs the extra 'train'")
    from accelerate.commands.launch import launch_command_parser

    words = executed(batch_script(job("--seed", "1", gpus=4), "/log", []))
    assert words[:3] == [sys.executable, "-m", "accelerate.commands.launch"]
    known = launch_command_parser().parse_args(words[3:])
    assert (known.num_processes, known.num_machines, known.multi_gpu, known.module) == (4, 1, True, True)
    assert (known.training_script, known.training_script_args) == ("repo_agent", ["gsm8k", "grpo", "--seed", "1"])


def test_that_the_pipeline_runs_in_one_process_so_far_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["slurm", "sft", "--gpus", "2"]) == 0
    said = capsys.readouterr()
    assert "accelerate.commands.launch" in said.out
    assert "so far a stage runs in one process" in said.err


@pytest.mark.parametrize("stage", ["traces", "sft", "grpo", "exit"])
def test_every_stage_is_one_of_the_pipeline(stage: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["slurm", stage, "--interactive"]) == 0
    assert shlex.split(capsys.readouterr().out)[-2:] == ["gsm8k", stage]


def test_the_line_for_srun_is_one_command() -> None:
    words = shlex.split(interactive_line(job("--output-dir", ODD)))
    assert words[0] == "srun"
    assert {"--pty", "--gpus-per-node=1", "--partition=long", "--time=1-12:00", "--chdir=/work"} < set(words)
    assert words[-4:] == ["gsm8k", "grpo", "--output-dir", ODD]


def test_variables_are_passed_by_name_and_no_value_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "TRAIN_SAMPLES", "MY_OWN", "UNRELATED", "PYTHONPATH"):
        monkeypatch.setenv(name, "64" if name == "TRAIN_SAMPLES" else SECRET)
    assert main(["slurm", "sft", "--env", "MY_OWN", "--", "--seed", "3"]) == 0
    script = capsys.readouterr().out
    assert SECRET not in script
    (export,) = (word for word in directives(script) if word.startswith("--export="))
    names = export.removeprefix("--export=").split(",")
    assert {"HF_TOKEN", "OPENAI_API_KEY", "TRAIN_SAMPLES", "MY_OWN", "PATH", "PYTHONPATH"} <= set(names)
    assert "UNRELATED" not in names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sft", "--", "--sede", "1"], "unrecognized arguments: --sede 1 (see repo-agent gsm8k"),
        (["sft", "--", "--seed", "one"], "--seed"),
        (["sft", "--seed", "1"], "unrecognized arguments: --seed 1 (see repo-agent slurm --help)"),
        (["eval"], "invalid choice: 'eval'"),
        (["sft", "--submit", "--interactive"], "not allowed with"),
        (["sft", "--gpus", "-1"], "must be at least 0"),
        (["sft", "--partition", "a b"], "no name of a partition"),
        (["sft", "--partition", "a\n#SBATCH --uid=0"], "no name of a partition"),
        (["sft", "--time", "soon"], "--time 'soon'"),
        (["sft", "--log", "missing/x.log"], "no directory"),
        (["sft", "--log", "x\n.log"], "cannot be in a log's path"),
        (["sft", "--env", "TOKEN=sk-never-to-be-written"], "--env TOKEN: a name only"),
        (["sft", "--env", "NOT_SET_AT_ALL"], "it is not set"),
        (["sft", "--interactive", "--env", "HOME"], "mean nothing with --interactive"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_printed(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["slurm", *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert SECRET not in said.err


def test_a_setting_in_the_environment_is_checked_now(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRAIN_SAMPLES", "many")
    assert main(["slurm", "sft"]) == 2
    assert "TRAIN_SAMPLES" in capsys.readouterr().err


@pytest.mark.parametrize("time", ["30", "90:00", "12:00:00", "2-0", "1-12:00", "1-12:00:00"])
def test_slurms_forms_of_time_are_taken(time: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["slurm", "sft", "--time", time]) == 0
    assert f"--time={time}" in directives(capsys.readouterr().out)


def test_the_log_lies_where_the_job_was_made_percent_signs_and_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / "100%j"
    here.mkdir()
    monkeypatch.chdir(here)
    assert main(["slurm", "sft"]) == 0
    assert f"--output={tmp_path}/100%%j/slurm-gsm8k-sft-%j.log" in directives(capsys.readouterr().out)


SBATCH = """#!/bin/bash
# as Slurm does it: the script is kept, and runs with the variables that it names
cat > job.sh
names=$(sed -n 's/^#SBATCH --export=//p' job.sh | tr , ' ')
for name in $names; do pairs+=("$name=${!name}"); done
env -i "${pairs[@]}" /bin/bash job.sh > job.log 2>&1
echo $? > job.rc
echo Submitted batch job 42
"""


def stand_in(place: Path, monkeypatch: pytest.MonkeyPatch, text: str = SBATCH) -> None:
    (place / "bin").mkdir()
    (place / "bin" / "sbatch").write_text(text)
    (place / "bin" / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.slow
def test_a_submitted_job_runs_the_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    from trainers.tiny_model import init_tiny

    init_tiny(tmp_path / "tiny model")
    stand_in(tmp_path, monkeypatch)
    monkeypatch.setenv("EVAL_SAMPLES", "2")
    sizes = ["--prep-train-samples", "4", "--epochs", "1", "--max-tokens", "8", "--no-lora", "--device", "cpu"]
    flags = ["--stage", "prep", "--suite", "arith", "--base-model", "tiny model", "--output-dir", "prep's", *sizes]
    assert main(["slurm", "sft", "--gpus", "0", "--submit", "--", *flags]) == 0
    assert capfd.readouterr().out.strip() == "Submitted batch job 42"
    assert (tmp_path / "job.rc").read_text() == "0\n", (tmp_path / "job.log").read_text()
    assert (tmp_path / "prep's" / "result.json").is_file()
    (metrics,) = (tmp_path / "prep's" / "debug").glob("prep_sft_*_metrics.txt")
    assert "samples: 2\n" in metrics.read_text()


def test_what_sbatch_refuses_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(tmp_path, monkeypatch, "#!/bin/sh\necho 'invalid partition specified: x' >&2\nexit 1\n")
    assert main(["slurm", "sft", "--partition", "x", "--submit"]) == 2
    assert "sbatch refused the job: invalid partition specified: x" in capsys.readouterr().err


def test_without_sbatch_that_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["slurm", "sft", "--submit"]) == 2
    assert "there is no sbatch on this machine" in capsys.readouterr().err
