"""`repo-agent prefs` from rollouts to rows, on real tasks with a policy that errs by chance."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import repo_agent
from harness.records import ForkPoint, PairNote, StopReason, Trace
from harness.trace_reader import TraceLog
from harness.trace_store import TRACES
from suites.base import SuiteFile, load, write_suite_file
from tests.chat_server import ChatServer, Reply, Request, completion
from tools.protocol import call_text, final_text
from trainers.pairs import Side, make_pair
from trainers.prefs import Collected, only_repairs

pytestmark = pytest.mark.slow
MINIBUGS = load("minibugs")
TRAIN = [task.id for task in MINIBUGS.tasks() if MINIBUGS.split_of(task) == "train" and task.id != "build_order"]
SMALL_REPAIRS = ["duration_text", "line_fold", "page_window"]
TEST = [task.id for task in MINIBUGS.tasks() if MINIBUGS.split_of(task) == "test"]
ERRING = ("--llm-provider", "reference", "--temperature", "1.5", "--max-iters", "4")
SMALL = ("--rollouts", "4", "--fork-at", "write", "--fork-actions", "4", "--fork-plays", "8", "--fork-rollouts", "120")


def suite_file(folder: Path, tasks: list[str]) -> str:
    content = SuiteFile(name="some", suite="minibugs", version=MINIBUGS.version, tasks=tuple(tasks))
    write_suite_file(folder / "some.json", content)
    return str(folder / "some.json")


def prefs(run: Path, *flags: str, tasks: list[str] = SMALL_REPAIRS) -> int:
    where = ("--sandbox", "local", "--isolation", "container", "--trace-dir", str(run), "--no-verdict-cache")
    return repo_agent.main(["prefs", "--suite", suite_file(run.parent, tasks), *where, *flags])


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def records(run: Path) -> list[dict[str, Any]]:
    return rows(run / "_prefs.pairs.jsonl")


def traces(run: Path) -> dict[str, Trace]:
    with TraceLog(run) as log:
        return {trace.header.rollout: trace for trace in log}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with pairs."""
    run = tmp_path_factory.mktemp("prefs") / "run"
    assert prefs(run, *ERRING, *SMALL) == 0
    return run


def test_pairs_are_found_and_their_rows_are_sound(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(records(made)) >= 1
    assert {record["source"] for record in records(made)} <= {"fork", "merge"}
    assert repo_agent.main(["data", "check", str(made / "_prefs.jsonl")]) == 0
    assert len(rows(made / "_prefs.jsonl")) == len(records(made))


def test_chosen_write_passed_the_tests_and_the_rejected_one_did_not(made: Path) -> None:
    known = traces(made)
    for record in records(made):
        assert record["chosen"]["value"] > record["rejected"]["value"]
        for side, passed in (("chosen", True), ("rejected", False)):
            steps = {step.id: step for step in known[record[side]["rollout"]].steps}
            report = steps[record[side]["step"]].report
            assert report is not None and report.passed is passed


def test_each_side_stands_in_the_log_at_the_state_of_its_pair(made: Path) -> None:
    known = traces(made)
    for row, record in zip(rows(made / "_prefs.jsonl"), records(made), strict=True):
        for side, text in (("chosen", "preferred_output"), ("rejected", "non_preferred_output")):
            trace = known[record[side]["rollout"]]
            depth = [step.id for step in trace.steps].index(record[side]["step"])
            assert trace.steps[depth].completion.text == row[text][0]["content"]
            said = [{"role": each.role, "content": each.content} for each in trace.conversation(depth)]
            assert said == row["input"]["messages"]


def test_forks_share_their_prefix_and_are_bounded(made: Path) -> None:
    lines = [json.loads(line) for line in (made / TRACES).read_bytes().splitlines()]
    written = Counter((each["rollout"], each["step"]) for each in lines if each["event"] == "completion")
    assert set(written.values()) == {1}
    forks = [trace for trace in traces(made).values() if trace.header.fork]
    assert forks
    assert all(trace.shared > 0 for trace in forks)
    assert sum(trace.stop is not None for trace in forks) <= 120


def test_pairs_are_noted_in_the_log(made: Path) -> None:
    notes = [note for trace in traces(made).values() for note in trace.notes if isinstance(note, PairNote)]
    assert sorted(note.pair for note in notes) == sorted(record["id"] for record in records(made))


def test_card_says_where_the_pairs_come_from(made: Path) -> None:
    card = json.loads((made / "_prefs.card.json").read_text())
    assert card["rows"] == len(records(made))
    assert sum(card["counts"]["tasks"].values()) == card["rows"]
    assert card["counts"]["policies"] == {"reference (oracle)": card["rows"]}
    assert "No row comes from a task of a test split." in card["leakage"]


def test_same_seed_gives_the_same_pairs(made: Path, tmp_path: Path) -> None:
    assert prefs(tmp_path / "run", *ERRING, *SMALL) == 0
    assert (tmp_path / "run" / "_prefs.jsonl").read_bytes() == (made / "_prefs.jsonl").read_bytes()


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9])
def test_killed_command_goes_on_where_it_was(made: Path, tmp_path: Path, share: float) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_bytes((made / "run.json").read_bytes())
    lines = [line for line in (made / TRACES).read_bytes().splitlines(keepends=True) if b'"event":"note"' not in line]
    (run / TRACES).write_bytes(b"".join(lines[: int(share * len(lines))]))
    assert prefs(run, *ERRING, *SMALL, "--resume") == 0
    assert (run / "_prefs.jsonl").read_bytes() == (made / "_prefs.jsonl").read_bytes()
    again = [line for line in (run / TRACES).read_bytes().splitlines() if b'"event":"completion"' in line]
    assert len(again) == sum(b'"event":"completion"' in line for line in lines)


def test_trl_rows_carry_what_a_trainer_filters_by(made: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("run.json", TRACES):
        (run / name).write_bytes((made / name).read_bytes())
    assert prefs(run, *ERRING, *SMALL, "--resume", "--target", "trl") == 0
    assert [row["pair_id"] for row in rows(run / "_prefs.jsonl")] == [record["id"] for record in records(made)]
    assert all(row["pair_confidence"] >= 0.9 for row in rows(run / "_prefs.jsonl"))
    assert repo_agent.main(["data", "check", str(run / "_prefs.jsonl")]) == 0


# ---- without tests, and what is refused


def sloppy(request: Request) -> Reply:
    """Puts its calls in a code fence for some seeds, and ends."""
    texts = [call_text("list_files"), final_text("done")]
    text = texts[min(request.turn, 1)]
    return completion(f"```json\n{text}\n```" if request.body["seed"] % 2 else text)


def test_without_tests_only_protocol_and_loop_pairs_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOSTED_VLLM_API_KEY", "none-is-needed")
    run = tmp_path / "run"
    with ChatServer(sloppy) as server:
        model = ("--llm-provider", "vllm", "--model", "m", "--api-base", server.url)
        flags = ("--test-policy", "never", "--rollouts", "4", "--max-malformed", "1")
        assert prefs(run, *model, *flags) == 0
    assert "no test is run, so only protocol and loop pairs are made" in capsys.readouterr().err
    assert {record["source"] for record in records(run)} == {"protocol"}
    assert all("```" not in row["preferred_output"][0]["content"] for row in rows(run / "_prefs.jsonl"))
    assert all("```" in row["non_preferred_output"][0]["content"] for row in rows(run / "_prefs.jsonl"))
    assert not any(trace.header.fork for trace in traces(run).values())
    assert {trace.stop for trace in traces(run).values()} == {StopReason.FINAL}


def test_malformed_rejected_sides_are_kept_to_their_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTED_VLLM_API_KEY", "none-is-needed")
    run = tmp_path / "run"
    with ChatServer(sloppy) as server:
        model = ("--llm-provider", "vllm", "--model", "m", "--api-base", server.url)
        assert prefs(run, *model, "--test-policy", "never", "--rollouts", "4") == 0
    assert records(run) == []
    card = json.loads((run / "_prefs.card.json").read_text())
    assert card["dropped"]["pairs"]["over --max-malformed"] > 0


def test_tasks_of_the_test_split_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    flags = ("--llm-provider", "noop", "--rollouts", "1", "--test-policy", "never")
    assert prefs(run, *flags, tasks=[TEST[0], TRAIN[0]]) == 0
    assert "1 tasks of the test split are left out" in capsys.readouterr().err
    assert {trace.header.task for trace in traces(run).values()} == {TRAIN[0]}
    assert prefs(tmp_path / "none", *flags, tasks=TEST[:1]) == 2
    assert "--allow-test-split plays them" in capsys.readouterr().err
    assert prefs(tmp_path / "forced", *flags, "--allow-test-split", tasks=TEST[:1]) == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--margin", "2"), "between 0 and 1"),
        (("--pairs", "forks"), "unknown source 'forks'"),
        (("--fork-actions", "1"), "at least 2"),
        (("--resume",), "needs --trace-dir"),
    ],
)
def test_bad_flags_are_one_line(flags: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert repo_agent.main(["prefs", *flags]) == 2
    assert said in capsys.readouterr().err


def test_other_fork_settings_are_another_run(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prefs(made, *ERRING, *SMALL, "--fork-actions", "5", "--resume") == 2
    assert "fork_actions: 4 there, 5 here" in capsys.readouterr().err


def test_output_that_cannot_be_written_is_told_before_anything_is_played(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    for out, said in (("folder", "is a directory"), ("other/traces.jsonl", "would overwrite a run's own file")):
        assert prefs(tmp_path / "run", *ERRING, "--out", str(tmp_path / out)) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_budget_that_is_raised_lets_the_run_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a smaller budget cut off is no result; with a larger one it is played to its end."""
    monkeypatch.setenv("HOSTED_VLLM_API_KEY", "none-is-needed")
    with ChatServer(sloppy) as server:
        model = ("--llm-provider", "vllm", "--model", "m", "--api-base", server.url, "--test-policy", "never")
        one = ("--rollouts", "1", "--num-workers", "1")
        assert prefs(tmp_path / "run", *model, *one, "--max-total-tokens", "15") == 0
        assert StopReason.BUDGET in {trace.stop for trace in traces(tmp_path / "run").values()}
        assert prefs(tmp_path / "run", *model, *one, "--resume") == 0
    whole = traces(tmp_path / "run")
    assert len(whole) == len(SMALL_REPAIRS)
    assert {trace.stop for trace in whole.values()} == {StopReason.FINAL}


def test_oracle_is_not_taken_at_its_mistakes() -> None:
    """A chosen side that only the tests let pass is no repair."""
    task = next(task for task in MINIBUGS.tasks() if task.id == SMALL_REPAIRS[0])
    fixed = MINIBUGS.reference(task)
    assert fixed is not None
    path = next(iter(fixed.edits))
    right = call_text("write_file", rel_path=path, content=fixed.read(path).decode())
    lucky = call_text("write_file", rel_path=path, content=fixed.read(path).decode() + "# lucky\n")
    sides = Side(rollout="r", step="a"), Side(rollout="r", step="b")
    state = ForkPoint(rollout="r", step=None)
    pairs = [make_pair("fork", "solved", task.id, state, sides, (text, "bad"), False, 1.0) for text in (right, lucky)]
    collected = Collected(pairs)
    only_repairs(collected, {task.id: fixed})
    assert [pair.chosen_text for pair in collected.pairs] == [right]
    assert collected.dropped.total() == 1
