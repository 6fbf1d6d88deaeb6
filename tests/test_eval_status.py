"""`repo-agent status`: what it tells of real runs, living and dead, and that it leaves them as they are."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eval.status import RunStatus, RunWatch
from eval.status_training import TrainingWatch
from harness.progress import notice, progress_view
from harness.progress_log import PROGRESS_FILE, ProgressLog
from harness.trace_store import TRACES
from repo_agent import main

FLAGS = ("--sandbox", "local", "--no-verdict-cache", "--suite", "minibugs", "--limit", "3", "--max-iters", "4")


def argv(run: Path, *more: str) -> list[str]:
    return ["eval", *FLAGS, "--rollouts", "2", "--trace-dir", str(run), *more]


@contextmanager
def playing(run: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A run in a process of its own, with a rollout behind it; killed at the end."""
    command = [sys.executable, "-m", "repo_agent", *argv(run, *more)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (run / PROGRESS_FILE).exists() or b'"unit"' not in (run / PROGRESS_FILE).read_bytes():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        yield process
    finally:
        process.kill()
        process.wait()


def look(run: Path) -> RunStatus:
    return RunWatch(run).look(time.time())


def said(run: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    assert main(["status", str(run), *flags]) == 0
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("ended") / "run"
    assert main(argv(run, "--llm-provider", "reference", "--max-iters", "30")) == 0
    return run


def test_a_running_run_is_read_from_outside_and_once_killed_it_has_died_and_can_be_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with playing(run, "--num-workers", "1") as process:
        status = look(run)
        assert status.state == "running"
        assert f"process {process.pid}" in status.said
        (count,) = status.counts
        assert 1 <= count.done < 6
        assert (count.total, count.good) == (6, 0)
        assert "left" in count.pace
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        died = look(run)
    ends = sum(line.startswith(b'{"event":"end"') for line in (run / TRACES).read_bytes().splitlines())
    assert died.state == "died"
    assert "--resume" in died.said
    assert ends - 1 <= died.counts[0].done <= ends
    assert main(argv(run, "--resume")) == 0
    resumed = look(run)
    assert (resumed.state, resumed.counts[0].done, resumed.counts[0].total) == ("ended", 6, 6)
    assert "rollouts: 6 of 6 done, 0 solved (0% of 6)" in said(run, capsys)


def test_an_interrupted_run_says_so(tmp_path: Path) -> None:
    with playing(tmp_path / "run", "--rollouts", "9") as process:
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    status = look(tmp_path / "run")
    assert status.state == "interrupted"
    assert status.workers == ()


def test_an_ended_run_shows_its_counts_and_its_last_lines(ended: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(ended, capsys)
    assert text.startswith(f"{ended}: ended ")
    assert "rollouts: 6 of 6 done, 6 solved (100% of 6)" in text
    assert text.count("#") == 5
    assert text.splitlines()[1].startswith("minibugs, policy reference, seed 0, sandbox local")


def test_nothing_is_written_in_the_run_directory(ended: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def content() -> dict[str, tuple[int, bytes]]:
        return {each.name: (each.stat().st_mtime_ns, each.read_bytes()) for each in ended.iterdir()}

    before, folder = content(), ended.stat().st_mtime_ns
    said(ended, capsys)
    assert (content(), ended.stat().st_mtime_ns) == (before, folder)


def test_half_a_line_is_read_when_it_is_whole(tmp_path: Path, ended: Path) -> None:
    run = Path(shutil.copytree(ended, tmp_path / "run"))
    whole = (run / PROGRESS_FILE).read_bytes().splitlines(keepends=True)
    (run / PROGRESS_FILE).write_bytes(b"".join(whole[:-1]) + whole[-1][:9])
    watch = RunWatch(run)
    assert watch.look(time.time()).state == "running"  # by this very process
    with (run / PROGRESS_FILE).open("ab") as file:
        file.write(whole[-1][9:])
    assert watch.look(time.time()).state == "ended"


def test_a_run_of_another_machine_is_not_said_to_be_dead(tmp_path: Path, ended: Path) -> None:
    run = Path(shutil.copytree(ended, tmp_path / "run"))
    began, *rest = map(json.loads, (run / PROGRESS_FILE).read_text().splitlines())
    began |= {"host": "far", "owner": f"far-away:{began['pid']}:1"}
    (run / PROGRESS_FILE).write_text("".join(json.dumps(each) + "\n" for each in [began, *rest[:-1]]))
    status = look(run)
    assert status.state == "elsewhere"
    assert f"process {began['pid']} on far, another machine" in status.said


def test_a_run_without_a_log_of_progress_is_counted_by_its_traces(tmp_path: Path, ended: Path) -> None:
    run = Path(shutil.copytree(ended, tmp_path / "run"))
    (run / PROGRESS_FILE).unlink()
    status = look(run)
    assert (status.state, status.counts[0].done, status.counts[0].good) == ("ended", 6, 6)
    (run / "report.json").unlink()
    with (run / TRACES).open("ab") as file:
        file.write(b'{"event":"end","rol')
    status = look(run)
    assert (status.state, status.counts[0].done) == ("unknown", 6)


def test_a_sweep_is_a_table_of_its_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = tmp_path / "sweep"
    assert main(["eval", *FLAGS, "--llm-provider", "noop", "--seeds", "2", "--trace-dir", str(sweep)]) == 0
    shutil.rmtree(sweep / "noop-seed1")  # as if it were not begun yet
    capsys.readouterr()
    text = said(sweep, capsys)
    assert "1 of 2 runs have ended" in text
    assert [line.split()[:6] for line in text.splitlines() if line.lstrip().startswith("noop-")] == [
        ["noop-seed0", "ended", "3", "of", "3", "0"],
        ["noop-seed1", "waiting"],
    ]


def test_watching_ends_when_nobody_plays_the_run_any_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with playing(tmp_path / "run", "--rollouts", "9") as process:
        watcher = [sys.executable, "-m", "repo_agent", "status", str(tmp_path / "run"), "--watch"]
        watching = subprocess.Popen(watcher, stdout=subprocess.PIPE, text=True)
        assert watching.stdout
        first = watching.stdout.readline()
        process.kill()
        process.wait()
        rest = watching.communicate(timeout=60)[0]
    assert ": running: process" in first
    assert ": died: process" in rest
    assert watching.returncode == 0


def training(path: Path, steps: int) -> None:
    """A directory as `repo-agent train grpo` has it, with a torn last line."""
    path.mkdir()
    settings = {"model": "/models/tiny", "seed": 3, "max_steps": 50}
    (path / "train.json").write_text(json.dumps({"kind": "grpo", "settings": settings}))
    metrics = [{"step": n, "loss": 0.5 / n, "reward": n / 10, "seconds": 2.0 * n} for n in range(1, steps + 1)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in metrics) + '{"step": 9, "lo')


def test_a_training_shows_step_loss_reward_rate_and_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training(tmp_path / "run", steps=8)
    with ProgressLog(tmp_path / "run", notice) as log, progress_view(50, "steps", "steps", log):
        with progress_view(6, what="rollouts of step 9", log=log) as rollouts:
            rollouts.done("t#0 final, 3 steps", True)
        lines = said(tmp_path / "run", capsys).splitlines()
    assert lines[0].startswith(f"{tmp_path / 'run'}: running: process {os.getpid()} on ")
    assert lines[1:3] == ["train grpo of /models/tiny, seed 3", "steps: 8 of 50 done, 2 s a step, 84 s left"]
    assert lines[3].startswith("rollouts of step 9: 1 of 6 done, 1 solved (100% of 1)")
    assert lines[4] == "step 8: loss 0.0625, reward 0.8"


def test_a_training_has_ended_when_its_result_is_there(tmp_path: Path) -> None:
    training(tmp_path / "run", steps=8)
    with ProgressLog(tmp_path / "run", notice):
        pass
    assert TrainingWatch(tmp_path / "run").look(time.time()).state == "stopped"
    (tmp_path / "run" / "result.json").write_text(json.dumps({"steps": 8, "seconds": 16.0}))
    status = TrainingWatch(tmp_path / "run").look(time.time())
    assert (status.state, status.said) == ("ended", "ended: 8 steps in 16 s")


@pytest.mark.parametrize("name", ["", "nowhere", "file"])
def test_anything_else_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (tmp_path / "file").write_text("")
    assert main(["status", str(tmp_path / name)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
