"""A killed run is continued: nothing is lost, nothing is done twice, and no model call is paid twice."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import repo_agent
from eval.report import Report
from harness.policies.reference import ReferenceSource
from harness.policies.scripted import ScriptedPolicy
from harness.records import StopReason
from harness.run_files import REPORT_FILE, RUN_FILE
from harness.trace_reader import read_traces
from harness.trace_store import TRACES
from suites.base import SuiteFile, load, write_suite_file
from tests.chat_server import ChatServer, Reply, Request, completion
from tools.protocol import call_text, final_text

ROOT = Path(__file__).parents[1]
MINIBUGS = load("minibugs")
TASK = MINIBUGS.tasks()[0]
KILLS = 20
UNTIMED = {"seconds", "score_seconds", "tool_seconds", "test_seconds", "logprobs"}


def suite_file(folder: Path, count: int) -> str:
    tasks = tuple(task.id for task in MINIBUGS.tasks() if task.id != "build_order")[:count]
    write_suite_file(
        folder / "few.json", SuiteFile(name="few", suite="minibugs", version=MINIBUGS.version, tasks=tasks)
    )
    return str(folder / "few.json")


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in UNTIMED}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def results(run: Path) -> dict[str, Any]:
    """All that a run found, but for how long it took."""
    found: dict[str, Any] = {}
    for trace in read_traces(run):
        assert trace.header.rollout not in found
        found[trace.header.rollout] = without_times(trace.model_dump(mode="json"))
    return found


def events(run: Path) -> list[dict[str, Any]]:
    lines = (run / TRACES).read_bytes().split(b"\n") if (run / TRACES).exists() else []
    return [json.loads(line) for line in lines[:-1]]


# ---- killed at every event, one by one


def evaluate(run: Path, *flags: str) -> int:
    where = ("--sandbox", "local", "--no-verdict-cache", "--trace-dir", str(run))
    return repo_agent.main(["eval", "--suite", suite_file(run.parent, 1), *where, *flags])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert evaluate(run, "--llm-provider", "reference") == 0
    return run


@pytest.mark.slow
def test_run_killed_after_any_event_ends_as_if_it_had_not_been(undisturbed: Path, tmp_path: Path) -> None:
    lines = (undisturbed / TRACES).read_bytes().splitlines(keepends=True)
    expected = results(undisturbed)
    for count in range(len(lines)):
        run = tmp_path / str(count) / "run"
        run.mkdir(parents=True)
        (run / RUN_FILE).write_bytes((undisturbed / RUN_FILE).read_bytes())
        torn = lines[count][: len(lines[count]) // 2]
        (run / TRACES).write_bytes(b"".join(lines[:count]) + torn)
        assert evaluate(run, "--llm-provider", "reference", "--resume") == 0
        assert results(run) == expected
        assert [event["event"] for event in events(run)] == [event["event"] for event in events(undisturbed)]
        report = Report.model_validate_json((run / REPORT_FILE).read_bytes())
        assert (report.total.rollouts, report.total.solved) == (1, 1)
        assert report.notices[-1] == f"the log ended in a torn line of {len(torn)} bytes, which was cut off"


def test_finished_run_is_only_reported_again(undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in (RUN_FILE, TRACES):
        (run / name).write_bytes((undisturbed / name).read_bytes())
    assert evaluate(run, "--llm-provider", "reference", "--resume") == 0
    assert (run / TRACES).read_bytes() == (undisturbed / TRACES).read_bytes()
    report = Report.model_validate_json((run / REPORT_FILE).read_bytes())
    assert (report.total.rollouts, report.total.solved, report.not_started) == (1, 1, 0)


def test_other_configuration_is_refused_with_the_difference(
    undisturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (undisturbed / TRACES).read_bytes()
    assert evaluate(undisturbed, "--llm-provider", "reference", "--resume", "--seed", "3", "--max-iters", "7") == 2
    said = capsys.readouterr().err
    assert "max_iters: 50 there, 7 here; seed: 0 there, 3 here" in said
    assert (undisturbed / TRACES).read_bytes() == before


def test_used_directory_is_refused_without_the_flag(undisturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(undisturbed, "--llm-provider", "reference") == 2
    assert "say --resume to continue it" in capsys.readouterr().err


def test_resume_of_nothing_begins_a_run(tmp_path: Path) -> None:
    assert evaluate(tmp_path / "run", "--llm-provider", "reference", "--resume") == 0
    assert len(results(tmp_path / "run")) == 1


def test_resume_needs_a_directory(capsys: pytest.CaptureFixture[str]) -> None:
    assert repo_agent.main(["eval", "--resume"]) == 2
    assert "--resume needs --trace-dir" in capsys.readouterr().err


def test_recorded_step_that_leads_elsewhere_now_is_named(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / RUN_FILE).write_bytes((undisturbed / RUN_FILE).read_bytes())
    lines = (undisturbed / TRACES).read_bytes().splitlines(keepends=True)[:5]
    (run / TRACES).write_bytes(b"".join(lines).replace(b"[tool_result]\\n", b"[tool_result]\\nother\\n", 1))
    (run / "not-replayable").touch()
    assert evaluate(run, "--llm-provider", "reference", "--resume") == 2
    assert "step s0000 (list_files) does not lead where it led" in capsys.readouterr().err


def test_failed_scoring_is_only_scored_again(undisturbed: Path, tmp_path: Path) -> None:
    """The engine broke after the agent was done: the log says so, and the model is not asked again."""
    run = tmp_path / "run"
    run.mkdir()
    (run / RUN_FILE).write_bytes((undisturbed / RUN_FILE).read_bytes())
    lines = (undisturbed / TRACES).read_bytes().splitlines(keepends=True)
    end = json.loads(lines[-1]) | {"stop": "error", "error": "engine down", "score": {"value": None}, "patch": ""}
    (run / TRACES).write_bytes(b"".join(lines[:-1]) + json.dumps(end).encode() + b"\n")
    assert evaluate(run, "--llm-provider", "reference", "--resume") == 0
    assert results(run) == results(undisturbed)
    assert [event["event"] for event in events(run)][len(lines) :] == ["end"]


# ---- killed for real, a model on the other side


def answer(request: Request) -> Reply:
    """A pure function of the conversation and the seed: looks, writes nonsense now and then, repairs, ends."""
    task = next(task for task in MINIBUGS.tasks() if task.goal in request.messages[1]["content"])
    policy = ReferenceSource(MINIBUGS.reference).policy(task, 0)
    assert isinstance(policy, ScriptedPolicy)
    path = next(path for path in task.tree.paths if task.may_edit(path))
    noise = hashlib.sha256(f"{request.body['seed']}".encode()).digest()[0]
    texts = [call_text("grep", pattern=f"x{noise}"), call_text("write_file", rel_path=path, content=f"# {noise}\n")]
    texts = [*texts, "no call", *policy.texts[:-1], final_text("done")]
    return completion(texts[request.turn])


class Model:
    """A server that takes a moment for each answer, and keeps count of what it was asked."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[int, str]] = Counter()
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Reply:
        with self._lock:
            self.asked[request.body["seed"], request.conversation] += 1
        time.sleep(0.02)
        return answer(request)


def command(server: ChatServer, run: Path, *flags: str) -> list[str]:
    model = ("--llm-provider", "vllm", "--model", "m", "--api-base", server.url, "--temperature", "1")
    where = ("--sandbox", "local", "--no-verdict-cache", "--trace-dir", str(run), "--num-workers", "3")
    what = ("--suite", suite_file(run.parent, 4), "--rollouts", "4")
    return [sys.executable, str(ROOT / "repo_agent.py"), "eval", *what, *where, *model, *flags]


def completions_by_rollout(run: Path) -> Counter[tuple[str, str]]:
    return Counter((event["rollout"], event["step"]) for event in events(run) if event["event"] == "completion")


def kill_when_log_has_grown(arguments: list[str], run: Path, lines: int, pause_s: float) -> bool:
    """Start a run and kill it after so many more events; False where it ended before."""
    log = run / TRACES
    size = log.stat().st_size if log.exists() else 0
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        while process.poll() is None:
            if log.exists() and log.read_bytes()[size:].count(b"\n") >= lines:
                time.sleep(pause_s)
                break
            time.sleep(0.002)
        process.kill()
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode in (-9, 0), errors
    return process.returncode == -9


@pytest.mark.slow
def test_run_killed_at_random_moments_ends_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTED_VLLM_API_KEY", "none-is-needed")
    chance, kills = random.Random(4), 0
    with ChatServer(Model()) as server:
        whole = tmp_path / "whole"
        assert subprocess.run(command(server, whole), capture_output=True).returncode == 0
    for number in range(3):
        model, run = Model(), tmp_path / f"killed-{number}"
        with ChatServer(model) as server:
            arguments = command(server, run, "--resume")
            in_flight = 0
            while kills < KILLS * (number + 1) // 3 and kill_when_log_has_grown(
                arguments, run, chance.randint(1, 20), chance.uniform(0, 0.04)
            ):
                kills += 1
                in_flight += 3  # calls that were asked, and whose answer nobody could write
            assert subprocess.run(arguments, capture_output=True).returncode == 0
        assert results(run) == results(whole)
        assert set(completions_by_rollout(run).values()) == {1}
        steps = sum(completions_by_rollout(run).values())
        assert steps == sum(model.asked.values()) - repeated(model)
        assert repeated(model) <= in_flight
    assert kills == KILLS


def repeated(model: Model) -> int:
    """Calls that were made more than once: only those whose answer was not written when the kill came."""
    return sum(count - 1 for count in model.asked.values())


@pytest.mark.slow
def test_call_is_not_repeated_for_a_step_that_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is gone right after the last completion was written: exactly the later steps are asked for."""
    monkeypatch.setenv("HOSTED_VLLM_API_KEY", "none-is-needed")
    run, first, second = tmp_path / "run", Model(), Model()
    with ChatServer(first) as server:
        assert repo_agent.main(command(server, run, "--num-workers", "1", "--limit", "1", "--rollouts", "1")[2:]) == 0
    lines = (run / TRACES).read_bytes().splitlines(keepends=True)
    (run / TRACES).write_bytes(b"".join(lines[:6]))
    assert json.loads(lines[5])["event"] == "completion"
    with ChatServer(second) as server:
        flags = ("--num-workers", "1", "--limit", "1", "--rollouts", "1", "--resume")
        assert repo_agent.main(command(server, run, *flags)[2:]) == 0
    (trace,) = read_traces(run)
    assert trace.stop is StopReason.FINAL
    assert sum(second.asked.values()) == len(trace.steps) - 3
    assert second.asked.keys() < first.asked.keys()
    assert len([key for key in first.asked if key not in second.asked]) == 3
