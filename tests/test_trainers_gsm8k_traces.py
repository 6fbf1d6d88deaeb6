"""Reasoning traces: which sample becomes a row, what the figures say, and that a killed command loses nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import repo_agent
from harness.errors import UsageError
from harness.trace_reader import read_traces
from suites.gsm8k.formats import FORMATS
from suites.gsm8k.numbers import same_number
from tests.chat_server import ChatServer, Reply, Request, completion
from tests.gsm8k_world import SMALL, VARIABLES, Pupil, asked, by_text, lines, right, run, served
from trainers.gsm8k.device_memory import counted, needed_bytes, refuse_too_large
from trainers.gsm8k.play import Sample
from trainers.gsm8k.rows import read_traces_file
from trainers.gsm8k.settings import Gsm8kSettings
from trainers.gsm8k.traces import figures, trimmed

ROOT = Path(__file__).parents[1]
SETTINGS = Gsm8kSettings(suite="arith+easy", prep_train_samples=6, train_samples=12)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in SMALL.items():
        monkeypatch.setenv(name, value)


def sample(question: str, attempt: int) -> Sample:
    return Sample(question, attempt, "", {"correct": 1.0, "thinking": 1.0}, "stop", 1)


def test_a_row_is_the_first_right_sample_or_else_the_worked_solution(tmp_path: Path) -> None:
    with ChatServer(Pupil(one_in=3)) as server:
        argv = served(server, "traces", "--grpo-model", "m", "--output-dir", str(tmp_path / "t"), "--num-samples", "20")
        assert (
            repo_agent.main([*argv, "--output-file", "rows.jsonl", "--max-attempts", "2", "--temperature", "0.8"]) == 0
        )
    rows, stats = lines(tmp_path / "t/rows.jsonl"), json.loads((tmp_path / "t/rows.jsonl.stats.json").read_text())
    assert [by_text()[row["question"]].id for row in rows] == [
        each.id for each in SETTINGS.train_questions(count=20).questions
    ]
    sampled = [row for row in rows if row["answer"].startswith("I see: ")]
    assert 0 < len(sampled) == stats["grpo_successes"] < 20 == stats["total_samples"] == len(rows)
    for row in rows:
        question = by_text()[row["question"]]
        assert set(row) == {"question", "answer"}
        assert row["answer"].removeprefix("I see: ") == f"{question.reasoning}\n\n#### {question.gold}"


def test_only_unsolved_questions_are_asked_again(tmp_path: Path) -> None:
    pupil = Pupil(one_in=2)
    with ChatServer(pupil) as server:
        assert repo_agent.main(served(server, "traces", "--grpo-model", "m", "--output-dir", str(tmp_path / "t"))) == 0
    stats = json.loads((tmp_path / "t/traces.jsonl.stats.json").read_text())
    assert pupil.asked.total() == round(stats["avg_attempts_overall"] * stats["total_samples"])
    assert set(pupil.asked.values()) == {1}


def test_a_right_sample_with_a_tag_in_its_reasoning_is_no_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def twice(request: Request) -> Reply:
        gold = asked(request).gold
        return completion(f"<start_working_out> <SOLUTION>{gold}</SOLUTION>{right(request)}")

    with ChatServer(twice) as server:
        argv = served(server, "traces", "--grpo-model", "m", "--output-dir", str(tmp_path), "--max-attempts", "2")
        assert repo_agent.main(argv) == 0
    assert not any("<" in row["answer"] for row in lines(tmp_path / "traces.jsonl"))
    said = capsys.readouterr()
    assert "12 rows, 0 of them sampled" in said.out and "attempt 2 of 2: 12 questions are left" in said.err
    assert "WARNING: under 50% of the rows are sampled" in said.err


def test_figures_count_attempts_from_one() -> None:
    found = [sample("a", 0), sample("b", 2), None, None]
    assert figures(found, 5) == {
        "total_samples": 4,
        "grpo_successes": 2,
        "fallback_count": 2,
        "success_rate": 0.5,
        "avg_attempts_for_successes": 2.0,
        "avg_attempts_overall": 3.5,
    }
    assert figures([None], 5)["avg_attempts_for_successes"] is None


def kill_when_some_are_answered(argv: list[str], directory: Path, count: int) -> bool:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "repo_agent.py"), *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while process.poll() is None:
            logs = list(directory.glob("traces/*/traces.jsonl"))
            if logs and logs[0].read_bytes().count(b'{"event":"end"') >= count:
                break
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    return process.returncode == -9


@pytest.mark.slow
@pytest.mark.parametrize("style", ["grpo", "r1"])
def test_a_killed_command_goes_on_without_asking_again_what_was_answered(tmp_path: Path, style: str) -> None:
    pupil = Pupil(one_in=3, wait_s=0.05)
    with ChatServer(pupil) as server:
        model = ("--model" if style == "r1" else "--grpo-model", "m")
        argv = served(server, "traces", "--style", style, *model, "--num-samples", "30", "--max-attempts", "3")
        assert repo_agent.main([*argv, "--output-dir", str(tmp_path / "whole")]) == 0
        whole, pupil.asked = pupil.asked, type(pupil.asked)()
        directory = tmp_path / "killed"
        argv = [*argv, "--output-dir", str(directory), "--resume"]
        kills = [kill_when_some_are_answered(argv, directory, count) for count in (5, 12, 20)]
        assert repo_agent.main(argv) == 0
    assert any(kills)
    (run_directory,) = directory.glob("traces/*")
    rollouts = [trace.header.rollout for trace in read_traces(run_directory)]
    assert len(rollouts) == len(set(rollouts)) == len(whole)
    assert set(pupil.asked) == set(whole)
    in_flight = int(SMALL["GSM8K_BATCH_SIZE"])
    assert pupil.asked.total() <= whole.total() + in_flight * sum(kills)
    for path in (tmp_path / "whole").glob("*.jsonl"):
        assert (directory / path.name).read_bytes() == path.read_bytes()


def test_a_run_that_is_there_is_continued_only_where_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ChatServer(Pupil(one_in=2)) as server:
        argv = served(server, "traces", "--grpo-model", "m", "--output-dir", str(tmp_path / "t"))
        assert repo_agent.main(argv) == 0
        assert repo_agent.main(argv) == 2
    assert "say --resume" in capsys.readouterr().err


def test_r1_traces_are_kept_right_and_wrong_up_to_their_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ChatServer(Pupil(one_in=4, wrong=" hm </think> <answer>-1</answer> User: more")) as server:
        argv = served(server, "traces", "--style", "r1", "--model", "m", "--num-samples", "24")
        assert repo_agent.main([*argv, "--output-dir", str(tmp_path)]) == 0
    everything, correct = lines(tmp_path / "sft_r1_all.jsonl"), lines(tmp_path / "sft_r1_correct.jsonl")
    assert len(everything) == 24
    assert [{name: row[name] for name in ("prompt", "response")} for row in everything if row["is_correct"]] == correct
    for row in everything:
        assert set(row) == {"prompt", "response", "ground_truth", "predicted", "is_correct"}
        assert row["response"].endswith("</answer>")
        assert same_number(row["predicted"], row["ground_truth"]) == row["is_correct"]
    stats = json.loads((tmp_path / "sft_r1_all.jsonl.stats.json").read_text())
    assert stats["share"] == len(correct) / 24 < 0.5
    said = capsys.readouterr().err
    assert "WARNING: under 50%" in said and "stronger --model" in said and "--temperature" in said


def test_the_worked_solutions_have_the_same_form(tmp_path: Path) -> None:
    assert run("traces", "--style", "original", "--output-dir", str(tmp_path)) == 0
    rows = lines(tmp_path / "sft_original.jsonl")
    assert len(rows) == 4000
    assert [FORMATS["r1"].read(row["response"]).exact for row in rows] == [True] * 4000
    assert rows[0]["prompt"].endswith(f"User: {SETTINGS.train_questions().questions[0].question}\nAssistant: <think>")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--model", "m"], "--model is for --style r1"),
        (["--style", "r1", "--grpo-model", "m"], "--grpo-model is for --style grpo"),
        (["--style", "original", "--dataset-split", "test"], "takes the train part"),
        (["--style", "r1", "--num-samples", "4001"], "has 4000 questions, not 4001"),
    ],
)
def test_flags_that_do_not_fit_are_one_line(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("traces", *argv) == 2
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == 1


def test_what_stands_behind_the_answer_is_cut_off() -> None:
    r1, solution = FORMATS["r1"], FORMATS["solution"]
    assert trimmed(" so </think> <answer>4</answer> User: x </answer>", r1) == " so </think> <answer>4</answer>"
    assert trimmed(solution.response("so", "4") + " more", solution) == solution.response("so", "4")
    for stray in ("<answer>4</answer> User: x", " so </think> </answer> <answer>4</answer> User: <answer>5</answer>"):
        assert trimmed(stray, r1) == stray.partition("4</answer>")[0] + "4</answer>"
        assert r1.read(trimmed(stray, r1)).number == r1.read(stray).number == "4"
    for unfinished in ("so", " so </think> <answer>4", "</answer> so </think>"):
        assert trimmed(unfinished, r1) == unfinished


def test_the_kinds_of_a_traces_file_are_told_apart_and_never_mixed(tmp_path: Path) -> None:
    answers: list[dict[str, object]] = [{"question": "1 + 1?", "answer": "so\n\n#### 2"}]
    responses: list[dict[str, object]] = [
        {"prompt": "p", "response": "r", "is_correct": True},
        {"prompt": "p", "response": "w", "is_correct": False},
    ]
    path = tmp_path / "t.jsonl"

    def write(rows: list[dict[str, object]]) -> Path:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    assert read_traces_file(write(answers), "correct").raw is False
    found = read_traces_file(write(responses), "correct")
    assert (found.raw, [row["response"] for row in found.rows], found.dropped) == (True, ["r"], 1)
    assert len(read_traces_file(path, "all").rows) == 2
    with pytest.raises(UsageError, match=r"t\.jsonl:2: prompt/response rows among question/answer rows"):
        read_traces_file(write([*answers, *responses]), "all")
    with pytest.raises(UsageError, match=r"t\.jsonl:1: a row has either"):
        read_traces_file(write([{**answers[0], **responses[0]}]), "all")
    with pytest.raises(UsageError, match="none of 1 rows is correct"):
        read_traces_file(write([responses[1]]), "correct")


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path: Path) -> None:
    row = json.dumps({"question": "1 + 1?", "answer": "so\n\n#### 2"})
    (tmp_path / "t.jsonl").write_text(f"\ufeff{row}\n\n{row}\n \n", encoding="utf-8")
    assert [each["line"] for each in read_traces_file(tmp_path / "t.jsonl", "all").rows] == [1, 3]


@pytest.mark.parametrize("line", ["[" * 100_000, '{"question": ' + "9" * 5000, '{"question": "1'])
def test_a_line_that_is_not_json_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "t.jsonl").write_text(line, encoding="utf-8")
    with pytest.raises(UsageError, match=r"t\.jsonl:1: not JSON"):
        read_traces_file(tmp_path / "t.jsonl", "all")


def test_a_large_model_needs_about_what_is_known() -> None:
    known = {14e9: 30, 32e9: 70, 72e9: 150}
    for parameters, gigabytes in known.items():
        assert needed_bytes(parameters, "bfloat16") / 1e9 == pytest.approx(gigabytes, rel=0.05)


def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="needs the extra 'train'")
    monkeypatch.setattr("trainers.gsm8k.device_memory.free_bytes", lambda device: 8e9)
    (tmp_path / "config.json").write_text("{}")
    header = json.dumps({"__metadata__": {}, "w": {"dtype": "BF16", "shape": [14_000_000, 1000]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert counted([tmp_path / "model.safetensors"]) == 14e9
    with pytest.raises(UsageError, match=r"14\.0 billion parameters in bfloat16 need about 30 GB, and 8 GB of cpu"):
        refuse_too_large(str(tmp_path), "cpu", "bfloat16")
