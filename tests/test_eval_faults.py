"""Whole runs of `repo-agent eval` against a service that fails: no rollout is lost, and no key gets out."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import repo_agent
from eval.report import Report
from harness.policies.litellm_policy import ServiceSettings
from harness.policies.reference import ReferenceSource
from harness.policies.scripted import ScriptedPolicy
from harness.records import StopReason, Task, Trace
from harness.run import MAX_ERRORS_IN_A_ROW
from harness.run_files import REPORT_FILE
from harness.trace_reader import read_traces
from suites import run_cli
from suites.base import SuiteFile, load, write_suite_file
from suites.run_cli import EXIT_STOPPED
from tests.chat_server import ChatServer, Reply, Request, Script, completion, error
from tools.protocol import call_text, final_text

pytestmark = pytest.mark.slow

SECRET = "sk-secret/with+odd=chars-0123456789"
MINIBUGS = load("minibugs")
TASKS = [task for task in MINIBUGS.tasks() if task.id != "build_order"]
"""Not the one whose bug is an endless loop: its tests take long to fail."""
SOLUTION = {task.id: ReferenceSource(MINIBUGS.reference).policy(task, 0) for task in MINIBUGS.tasks()}
FAULTY = (
    error(429),
    error(500),
    Reply(completion("x").body[:40]),
    Reply({"foo": 1}),
    Reply(completion("x").content, send=20),
    Reply(b"<html>"),
)
Serve = Callable[[Script], ChatServer]


@pytest.fixture(autouse=True)
def short_waits_and_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_cli, "ServiceSettings", partial(ServiceSettings, max_wait_s=0.01))
    for name in ("OPENAI_API_KEY", "HOSTED_VLLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers; they end with the test."""
    servers: list[ChatServer] = []

    def start(script: Script) -> ChatServer:
        servers.append(ChatServer(script).__enter__())
        return servers[-1]

    yield start
    for server in servers:
        server.__exit__(None, None, None)


def evaluate(server: ChatServer, run: Path, *flags: str) -> int:
    """The exit code of an evaluation of the first four of TASKS."""
    suite = SuiteFile(name="quick", suite="minibugs", version=MINIBUGS.version, tasks=tuple(task.id for task in TASKS))
    write_suite_file(run.parent / "quick.json", suite)
    model = () if "--llm-provider" in flags else ("--llm-provider", "vllm", "--model", "m")
    what = ("--suite", str(run.parent / "quick.json"), "--limit", "4", "--test-policy", "final")
    where = ("--sandbox", "local", "--no-verdict-cache", "--trace-dir", str(run), "--api-base", server.url)
    return repo_agent.main(["eval", *what, *where, *model, *flags])


def report(run: Path) -> Report:
    return Report.model_validate_json((run / REPORT_FILE).read_bytes())


def traces(run: Path) -> dict[str, Trace]:
    return {trace.header.task: trace for trace in read_traces(run)}


def task_of(request: Request) -> Task:
    return next(task for task in MINIBUGS.tasks() if task.goal in request.messages[1]["content"])


def solve(request: Request) -> Reply:
    """The reference repair, step by step."""
    policy = SOLUTION[task_of(request).id]
    assert isinstance(policy, ScriptedPolicy)
    return completion(policy.texts[request.turn])


def steps_before_final(task: Task) -> int:
    policy = SOLUTION[task.id]
    assert isinstance(policy, ScriptedPolicy)
    return len(policy.texts) - 1


def test_a_service_that_fails_now_and_then_loses_no_rollout(serve: Serve, tmp_path: Path) -> None:
    def script(request: Request) -> Reply:
        return FAULTY[request.number // 3 % len(FAULTY)] if request.number % 3 == 0 else solve(request)

    server = serve(script)
    assert evaluate(server, tmp_path / "run", "--suite", "minibugs", "--test-policy", "on_write") == 0
    total = report(tmp_path / "run").total
    assert (total.rollouts, total.scored, total.solved, total.unscored) == (4, 4, 4, 0)
    assert sum(total.retried_faults.values()) == len(server.requests) // 3
    assert set(total.retried_faults) <= {"rate_limit", "server_error", "malformed_response", "connection"}
    steps = sum(len(trace.steps) for trace in traces(tmp_path / "run").values())
    assert len(server.requests) == steps + sum(total.retried_faults.values())


def test_a_service_that_hangs_is_asked_again(serve: Serve, tmp_path: Path) -> None:
    def script(request: Request) -> Reply:
        reply = solve(request)
        return Reply(reply.content, wait_s=30) if request.number == 2 else reply

    assert evaluate(serve(script), tmp_path / "run", "--limit", "1", "--request-timeout", "1") == 0
    found = report(tmp_path / "run")
    assert (found.total.solved, found.total.retried_faults) == (1, {"timeout": 1})


def test_a_model_that_solves_nothing_scores_zero_and_is_no_fault(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda request: completion(final_text("I give up") if request.turn else "what?"))
    assert evaluate(server, tmp_path / "run") == 0
    found = report(tmp_path / "run")
    assert [rollout.score for rollout in found.rollouts] == [0.0] * 4
    assert (found.total.parse_errors, found.total.retried_faults, found.total.errors) == (4, {}, {})


def test_a_rollout_that_cannot_be_finished_is_unscored_and_the_others_are_not(serve: Serve, tmp_path: Path) -> None:
    broken = TASKS[1]

    def script(request: Request) -> Reply:
        return error(503, "overloaded") if task_of(request) == broken and request.turn else solve(request)

    server = serve(script)
    assert evaluate(server, tmp_path / "run", "--attempts", "3") == 0
    found = report(tmp_path / "run")
    by_task = {rollout.task: rollout for rollout in found.rollouts}
    assert (by_task[broken.id].score, by_task[broken.id].stop) == (None, StopReason.ERROR)
    assert [by_task[task.id].score for task in TASKS[:4] if task != broken] == [1.0] * 3
    assert (found.total.scored, found.total.unscored, found.total.solved_rate) == (3, 1, 1.0)
    ((said, count),) = found.total.errors.items()
    assert "server_error in attempt 3" in said and "overloaded" in said and count == 1
    assert len([request for request in server.requests if task_of(request) == broken]) == 1 + 3
    trace = traces(tmp_path / "run")[broken.id]
    assert (len(trace.steps), trace.stop) == (1, StopReason.ERROR)
    assert trace.score is not None and trace.score.value is None


def test_a_service_that_is_down_stops_the_run_and_the_report_is_written(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve(lambda request: error(500, "down"))
    flags = ("--limit", "9", "--attempts", "2", "--num-workers", "1")
    assert evaluate(server, tmp_path / "run", *flags) == EXIT_STOPPED
    found = report(tmp_path / "run")
    assert len(found.rollouts) == MAX_ERRORS_IN_A_ROW
    assert found.not_started == 9 - MAX_ERRORS_IN_A_ROW
    assert [rollout.score for rollout in found.rollouts] == [None] * MAX_ERRORS_IN_A_ROW
    assert (found.total.solved_rate, found.total.unscored) == (None, MAX_ERRORS_IN_A_ROW)
    assert "rollouts in a row failed" in found.stopped
    assert len(server.requests) == 2 * MAX_ERRORS_IN_A_ROW
    assert "STOPPED EARLY" in capsys.readouterr().out


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_ends_the_run_with_one_line_and_keeps_the_traces(
    serve: Serve, tmp_path: Path, capfd: pytest.CaptureFixture[str], status: int
) -> None:
    first, second, *_ = TASKS

    def script(request: Request) -> Reply:
        return solve(request) if task_of(request) == first else error(status, "no entry")

    server = serve(script)
    assert evaluate(server, tmp_path / "run", "--num-workers", "1") == 2
    said = capfd.readouterr().err.splitlines()
    (line,) = [line for line in said if line.startswith("repo-agent: error:")]
    assert f"status {status}" in line and "no entry" in line
    assert said[-1] == line and not [line for line in said if "Traceback" in line]
    kept = traces(tmp_path / "run")
    score = kept[first.id].score
    assert score is not None and score.value == 1.0
    assert (kept[second.id].stop, kept[second.id].steps) == (None, ())
    assert len([request for request in server.requests if task_of(request) == second]) == 1


@pytest.mark.parametrize(
    ("reply", "stop"),
    [
        (error(400, "This model's maximum context length is 10 tokens."), StopReason.CONTEXT_FULL),
        (completion("", "content_filter"), StopReason.CONTENT_FILTER),
    ],
)
def test_a_stop_by_the_service_is_scored_on_the_current_tree(
    serve: Serve, tmp_path: Path, reply: Reply, stop: StopReason
) -> None:
    repaired, untouched, *_ = TASKS

    def script(request: Request) -> Reply:
        last = steps_before_final(repaired) if task_of(request) == repaired else 1
        return reply if request.turn >= last else solve(request)

    assert evaluate(serve(script), tmp_path / "run", "--limit", "2") == 0
    scores = {rollout.task: (rollout.stop, rollout.score) for rollout in report(tmp_path / "run").rollouts}
    assert scores == {repaired.id: (stop, 1.0), untouched.id: (stop, 0.0)}


@pytest.mark.parametrize("cap", ["tokens", "cost"])
def test_a_spent_budget_ends_the_run_and_what_was_done_is_scored(serve: Serve, tmp_path: Path, cap: str) -> None:
    """A completion costs 2000 tokens, or 0.00075 dollars; the limit is reached when the repair is written."""
    first, calls = TASKS[0], steps_before_final(TASKS[0])
    flags = {
        "tokens": ("--max-total-tokens", str(2000 * calls)),
        "cost": ("--max-cost", str(0.00074 * calls), "--llm-provider", "openai", "--model", "gpt-4o-mini"),
    }

    def script(request: Request) -> Reply:
        usage = {"prompt_tokens": 1000, "completion_tokens": 1000, "total_tokens": 2000}
        return Reply({**solve(request).content, "usage": usage})

    server = serve(script)
    assert evaluate(server, tmp_path / "run", *flags[cap], "--num-workers", "1") == 0
    found = report(tmp_path / "run")
    ((task, stop, score),) = [(rollout.task, rollout.stop, rollout.score) for rollout in found.rollouts]
    assert (task, stop, score) == (first.id, StopReason.BUDGET, 1.0)
    assert (found.not_started, len(server.requests)) == (3, calls)
    assert found.total.prompt_tokens + found.total.completion_tokens == 2000 * calls
    assert found.total.cost_usd == (pytest.approx(0.00075 * calls) if cap == "cost" else None)


def test_rollouts_in_flight_end_when_another_spends_the_budget(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda request: completion(call_text("list_files"), prompt_tokens=1000))
    assert evaluate(server, tmp_path / "run", "--max-total-tokens", "6000", "--num-workers", "2") == 0
    found = report(tmp_path / "run")
    assert {(rollout.stop, rollout.score) for rollout in found.rollouts} == {(StopReason.BUDGET, 0.0)}
    assert len(found.rollouts) + found.not_started == 4
    assert 6 <= len(server.requests) <= 7


def echoing(status: int) -> Script:
    """The first task is told the key in all that a model can say, the second in errors 500, the others in this one."""

    def script(request: Request) -> Reply:
        header, task = request.headers["Authorization"], task_of(request)
        if task != TASKS[0]:
            return error(500 if task == TASKS[1] else status, f"wrong header {header}")
        editable = next(path for path in task.tree.paths if task.may_edit(path))
        said = [
            f"not JSON: {header}",
            call_text("grep", pattern=header),
            call_text("read_file", rel_path=header),
            call_text("read_file", rel_path=editable),
            call_text("write_file", rel_path=editable, content=f"raise ValueError('{header}')"),
            final_text(header),
        ]
        return completion(said[request.turn])

    return script


@pytest.mark.parametrize("status", [500, 401])
def test_the_key_appears_in_no_file_and_on_no_screen(
    serve: Serve, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("HOSTED_VLLM_API_KEY", SECRET)
    server = serve(echoing(status))
    flags = ("--limit", "3", "--attempts", "2", "--test-policy", "on_write", "--num-workers", "1")
    assert evaluate(server, tmp_path / "run", *flags) == (0 if status == 500 else 2)
    assert {request.headers["Authorization"] for request in server.requests} == {f"Bearer {SECRET}"}
    out, err = capfd.readouterr()
    written = [path.read_text() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(written) == (4 if status == 500 else 3)
    for text in (out, err, *written):
        assert SECRET not in text and SECRET[:12] not in text
    assert "[redacted]" in err and all("[redacted]" in text for text in written if '"event"' in text)
    (tmp_path / "run" / "not-replayable").touch()  # its log says other things than were said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--llm-provider", "openai", "--model", "gpt-4o"), "OPENAI_API_KEY"),
        (("--llm-provider", "no-such", "--model", "m"), "unknown --llm-provider 'no-such'"),
        (("--llm-provider", "openai"), "--llm-provider openai needs a --model"),
        (("--llm-provider", "vllm"), "--llm-provider vllm needs a --model"),
    ],
)
def test_a_model_that_cannot_be_asked_is_one_line_and_exit_code_2(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], flags: tuple[str, ...], said: str
) -> None:
    run = tmp_path / "run"
    assert repo_agent.main(["eval", "--sandbox", "local", "--trace-dir", str(run), *flags]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n"), run.exists()) == ("", 1, False)
    assert err.startswith("repo-agent: error: ") and said in err


def test_a_cost_cap_for_a_model_without_a_price_is_refused(
    serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve(solve)
    assert evaluate(server, tmp_path / "run", "--max-cost", "1") == 2
    assert "--max-cost cannot hold" in capsys.readouterr().err
    assert server.requests == []


def test_a_token_cap_with_a_service_that_counts_none_is_refused(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda request: Reply({**solve(request).content, "usage": None}))
    assert evaluate(server, tmp_path / "run", "--max-total-tokens", "1000", "--num-workers", "1") == 2
    assert len(server.requests) == 1


@pytest.mark.slow
def test_an_interruption_does_not_wait_for_a_hanging_service(serve: Serve, tmp_path: Path) -> None:
    server = serve(lambda request: Reply(b"", wait_s=60))
    flags = ["--llm-provider", "vllm", "--model", "m", "--api-base", server.url, "--sandbox", "local", "--limit", "4"]
    process = subprocess.Popen(
        [sys.executable, "repo_agent.py", "eval", *flags, "--trace-dir", str(tmp_path / "run")],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        while not server.requests:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)  # far less than one call may take
    finally:
        process.kill()
    assert process.returncode == 130
    assert report(tmp_path / "run").interrupted
    assert len(server.requests) <= 2
