"""The commands on question suites: no sandbox, no Docker, and one clear line where a command makes no sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.trace_reader import read_traces
from harness.trace_store import TRACES
from repo_agent import main
from suites.gsm8k.loading import load_questions
from tests.chat_server import ChatServer, Reply, Request, completion

SUITE = load_questions("arith:test")
BY_TEXT = {question.question: question for question in SUITE.questions}
NUMBER = {question.id: number for number, question in enumerate(SUITE.questions)}


def answers(request: Request) -> Reply:
    """Of each four questions in a row one right, one wrong, one without reasoning, one cut off."""
    question = BY_TEXT[request.messages[-1]["content"]]
    right = SUITE.form.response(question.reasoning, question.gold)
    wrong = SUITE.form.response(question.reasoning, f"{int(question.gold) + 1:,} dollars")
    bare = f"<SOLUTION>{question.gold}</SOLUTION>"
    text = [right, wrong, bare, right[:-20]][NUMBER[question.id] % 4]
    return completion(text, finish="length" if text == right[:-20] else "stop")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 questions, answered by a server."""
    directory = tmp_path_factory.mktemp("questions") / "run"
    with ChatServer(answers) as server:
        flags = ("--llm-provider", "vllm", "--model", "m", "--api-base", server.url, "--limit", "40")
        assert main(["eval", "--suite", "arith:test", "--trace-dir", str(directory), *flags]) == 0
    return directory


def report(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "report.json").read_text())
    return content


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(list(argv)) == 2
    said = capsys.readouterr().err
    assert said.startswith("repo-agent: error: ") and said.count("\n") == 1
    return said


def test_the_report_has_the_share_of_each_part_of_the_score_with_its_interval(run: Path) -> None:
    total = report(run)["total"]
    assert {name: share["rate"] for name, share in total["parts"].items()} == {
        "correct": 0.5,
        "answered": 0.75,
        "thinking": 0.75,
        "exact": 0.5,
    }
    assert total["solved"] == 20 and total["solved_interval"] == total["parts"]["correct"]["interval"]
    low, high = total["parts"]["answered"]["interval"]
    assert 0.59 < low < 0.75 < high < 0.87
    assert total["parse_errors_by_cause"] == {"truncated": 10}


def test_no_sandbox_is_recorded_and_no_test_is_counted(run: Path) -> None:
    made = report(run)
    assert made["sandbox"]["name"] == made["config"]["sandbox"] == "none"
    assert (made["total"]["test_runs"], made["verdict_cache"], made["notices"]) == (0, False, [])
    assert {trace.header.sandbox for trace in read_traces(run)} == {"none"}
    assert json.loads((run / "run.json").read_text())["sandbox"]["name"] == "none"


def test_the_terminal_shows_the_shares_and_only_the_first_questions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--llm-provider", "noop", "--limit", "35", "--trace-dir", str(tmp_path / "run"))
    assert main(["eval", "--suite", "arith:test", *flags]) == 0
    said = capsys.readouterr()
    assert "answered 0.000 (95% interval 0.00 to 0.10)" in said.out
    assert "and 5 more" in said.out and "test-00030" not in said.out
    assert "test runs" not in said.out and "WARNING" not in said.err + said.out


def test_a_run_is_replayed_and_graded_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(run)]) == 0
    assert "40 rollouts, 40 steps replayed, 0 diverged" in capsys.readouterr().out
    assert main(["rescore", str(run)]) == 0
    assert "40 rollouts graded by arith:test ee8c62d29b7f in none, 0 changed" in capsys.readouterr().out
    (first, *_) = read_traces(run)
    grade = first.grade()
    assert grade is not None and first.score is not None
    assert (grade.value, grade.parts) == (first.score.value, first.score.parts)


def test_an_ungraded_run_is_graded_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--llm-provider", "noop", "--limit", "3", "--test-policy", "never", "--trace-dir", str(tmp_path / "run"))
    assert main(["eval", "--suite", "arith:test", *flags]) == 0
    assert report(tmp_path / "run")["total"]["not_tested"] == 3
    assert main(["rescore", str(tmp_path / "run")]) == 0
    assert "3 rollouts graded by arith:test ee8c62d29b7f in none, 3 changed" in capsys.readouterr().out


def test_a_recorded_run_can_be_said_again(run: Path, tmp_path: Path) -> None:
    flags = ("--llm-provider", "replay", "--model", str(run), "--limit", "40", "--trace-dir", str(tmp_path / "run"))
    assert main(["eval", "--suite", "arith:test", *flags]) == 0
    assert report(tmp_path / "run")["total"]["parts"] == report(run)["total"]["parts"]


@pytest.mark.parametrize("provider", ["search", "reference"])
def test_a_policy_that_repairs_code_is_refused(
    provider: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(
        capsys, "eval", "--suite", "arith:test", "--llm-provider", provider, "--trace-dir", str(tmp_path / "r")
    )
    assert f"--llm-provider {provider} repairs code, and arith:test holds questions" in said
    assert not (tmp_path / "r").exists()


def test_what_would_do_nothing_or_harm_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("eval", "--suite", "arith:test", "--llm-provider")
    assert "leave --sandbox local out" in refused(capsys, *flags, "noop", "--sandbox", "local")
    assert "leaves no answers" in refused(capsys, *flags, "vllm", "--model", "m", "--constrain", "json")


def test_commands_that_need_repairs_say_so(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "prefs", "--suite", "arith:train", "--llm-provider", "noop")
    assert "prefs compares the actions of repairs, and arith:train holds questions" in said
    said = refused(capsys, "sft-extract", "--trace-dir", str(run), "--output", str(tmp_path / "rows.jsonl"))
    assert f"{run / TRACES} holds answers to questions" in said
    assert not (tmp_path / "rows.jsonl").exists()
    assert f"{run} holds answers to questions" in refused(capsys, "score-steps", str(run))
