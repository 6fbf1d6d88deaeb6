"""`repo-agent rescore`: stored final trees graded again, and the trees made again from the calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import repo_agent
from eval.rescore_cli import main
from harness.errors import Diverged, UsageError
from harness.records import Score, Task, Trace
from harness.run_files import RUN_FILE
from harness.trace_reader import TraceLog, read_traces
from harness.trace_store import TRACES, TraceStore
from harness.trees import final_tree, tree_after
from sandboxes.base import SandboxError
from sandboxes.local_sandbox import LocalBackend
from suites.base import SuiteFile, load, write_suite_file
from suites.minibugs.suite import MinibugsSuite

pytestmark = pytest.mark.slow

MINIBUGS = load("minibugs")
TASKS = {task.id: task for task in MINIBUGS.tasks()}
TASK = TASKS["account_transfer"]
HERE = ("--sandbox", "local", "--no-verdict-cache")
Events = list[dict[str, Any]]


def evaluate(run: Path, *flags: str) -> Path:
    assert repo_agent.main(["eval", *HERE, "--trace-dir", str(run), "--limit", "1", *flags]) == 0
    return run


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluate(tmp_path_factory.mktemp("original") / "run", "--llm-provider", "reference")


@pytest.fixture
def recorded(original: Path, tmp_path: Path) -> Path:
    """A run of its own for each test."""
    return copied(original, tmp_path / "run", lambda _events: None)


def copied(original: Path, run: Path, change: Callable[[Events], None]) -> Path:
    run.mkdir()
    (run / "not-replayable").touch()
    (run / RUN_FILE).write_bytes((original / RUN_FILE).read_bytes())
    events = [json.loads(line) for line in (original / TRACES).read_bytes().splitlines()]
    change(events)
    lines = (json.dumps(event, separators=(",", ":"), ensure_ascii=False) for event in events)
    (run / TRACES).write_text("".join(f"{line}\n" for line in lines))
    return run


def only(run: Path) -> Trace:
    (trace,) = read_traces(run)
    return trace


def unscored(events: Events) -> None:
    """The agent was done, then the engine broke."""
    events[-1] |= {"stop": "error", "error": "engine down", "score": {"value": None}}


def scored_zero(events: Events) -> None:
    events[-1]["score"] = {"value": 0.0}


# ---- the trees


def test_every_tree_of_a_rollout_is_made_again(tmp_path: Path) -> None:
    trace = only(evaluate(tmp_path / "run", "--max-iters", "20"))
    assert tree_after(TASK, trace, None).digest == TASK.tree.digest
    assert [tree_after(TASK, trace, step.id).digest for step in trace.steps] == [step.digest for step in trace.steps]
    assert final_tree(TASK, trace).digest == trace.steps[-1].digest
    with pytest.raises(KeyError):
        tree_after(TASK, trace, "s9999")


def test_tree_that_is_not_the_recorded_one_is_refused(original: Path) -> None:
    other = replace(TASK, tree=TASK.tree.write("new.py", b""))
    with pytest.raises(Diverged, match="the tree after step s0000"):
        final_tree(other, only(original))


def test_writes_are_carried_over_to_the_tree_of_another_version(original: Path) -> None:
    other = replace(TASK, tree=TASK.tree.write("new.py", b"").write("tillbank/bank.py", b"other"))
    tree = final_tree(other, only(original), carried=True)
    assert "new.py" in tree
    written = {path for path in tree.edits if path != "new.py"}
    assert written and all(tree.file(path) == final_tree(TASK, only(original)).file(path) for path in written)


# ---- the command


def test_spoilt_score_is_taken_again(original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = copied(original, tmp_path / "run", unscored)
    assert main([str(run), *HERE]) == 0
    trace = only(run)
    assert trace.score == Score(value=None)
    assert [grade.value for grade in (trace.grade(),) if grade] == [1.0]
    out = capsys.readouterr().out
    assert "account_transfer#0: unscored -> 1.0 (every expected test passed)" in out
    assert "1 rollouts graded by minibugs" in out and ", 1 changed" in out


def test_only_unscored_leaves_the_others(original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = copied(original, tmp_path / "run", scored_zero)
    assert main([str(run), *HERE, "--only-unscored"]) == 0
    assert only(run).notes == ()
    assert "not graded: 1 rollouts scored already" in capsys.readouterr().out
    assert main([str(run), *HERE]) == 0
    assert [note.score.value for note in only(run).notes if note.kind == "rescore"] == [1.0]
    assert "account_transfer#0: 0.0 -> 1.0" in capsys.readouterr().out


def test_note_says_where_and_by_which_version(recorded: Path) -> None:
    assert main([str(recorded), *HERE, "--isolation", "run"]) == 0
    (note,) = only(recorded).notes
    assert note.kind == "rescore"
    assert (note.suite_version, note.sandbox, note.isolation) == (MINIBUGS.version, "local", "run")


def test_never_tested_rollout_gets_its_score(tmp_path: Path) -> None:
    run = evaluate(tmp_path / "run", "--llm-provider", "reference", "--test-policy", "never")
    assert main([str(run), *HERE]) == 0
    grade = only(run).grade()
    assert grade and grade.value == 1.0


def test_other_version_of_the_suite_grades_for_itself(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new version has another test file, which the repair fails."""
    path = "tests/test_account_transfer.py"
    test = (TASK.tree.file(path).content + b"\n\ndef test_more():\n    assert False\n", f"{path}::test_more")
    harder = replace(TASK, tree=TASK.tree.write(path, test[0]), expected_tests=(*TASK.expected_tests, test[1]))
    use_version(monkeypatch, "harder", [harder])
    assert main([str(recorded), *HERE]) == 0
    trace = only(recorded)
    assert trace.grade() == trace.score
    again = trace.grade("harder")
    assert again and (again.value, again.parts["tests_passed"]) == (0.0, len(TASK.expected_tests))


def use_version(monkeypatch: pytest.MonkeyPatch, version: str, tasks: list[Task]) -> None:
    monkeypatch.setattr(MinibugsSuite, "version", version)
    monkeypatch.setattr(MinibugsSuite, "tasks", lambda _self: tasks)


def test_tasks_that_the_suite_no_longer_has_are_named(
    recorded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_version(monkeypatch, "smaller", [TASKS["org_chart"]])
    assert main([str(recorded), *HERE]) == 0
    out = capsys.readouterr().out
    assert "not graded: 1 rollouts of tasks that the suite does not have" in out
    assert out.endswith("tasks that the suite does not have: account_transfer\n")
    assert only(recorded).notes == ()


def test_changed_tree_is_named_and_not_graded(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(events: Events) -> None:
        (event,) = (event for event in events if "write_file" in json.dumps(event.get("completion")))
        event["completion"]["text"] = event["completion"]["text"].replace("class ", "klass ", 1)

    run = copied(original, tmp_path / "run", change)
    assert main([str(run), *HERE]) == 1
    out, err = capsys.readouterr()
    assert "account_transfer#0: DIVERGED: " in err and "the tree after step s0002" in err
    assert "not graded: 1 rollouts whose trees are not those that were recorded" in out
    assert only(run).notes == ()


def test_rollout_whose_agent_was_not_done_is_left(
    original: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill(events: Events) -> None:
        del events[5:]

    run = copied(original, tmp_path / "run", kill)
    assert main([str(run), *HERE]) == 0
    assert "not graded: 1 rollouts whose agent was not done" in capsys.readouterr().out


def test_fault_of_the_infrastructure_leaves_no_note(
    recorded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise SandboxError("engine down")

    monkeypatch.setattr(LocalBackend, "open", broken)
    assert main([str(recorded), *HERE]) == 3
    assert only(recorded).notes == ()
    assert "not graded: 1 rollouts for faults of the infrastructure" in capsys.readouterr().out


def test_run_under_way_is_not_written_to(recorded: Path) -> None:
    with TraceStore(recorded), pytest.raises(UsageError, match="another process is writing"):
        main([str(recorded), *HERE])


def test_verdict_cache_is_used(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPO_AGENT_CACHE", str(tmp_path / "cache"))
    flags = [str(recorded), "--sandbox", "local"]
    assert main(flags) == main(flags) == 0
    assert [note.score.cached for note in only(recorded).notes if note.kind == "rescore"] == [False, True]


def test_limit_is_of_rollouts(tmp_path: Path) -> None:
    run = evaluate(tmp_path / "run", "--llm-provider", "noop", "--rollouts", "2")
    assert main([str(run), *HERE, "--limit", "1", "--num-workers", "1"]) == 0
    with TraceLog(run) as log:
        assert [len(log.trace(rollout).notes) for rollout in log.rollouts] == [1, 0]


def test_suite_file_says_which_tasks(recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = SuiteFile(name="few", suite="minibugs", version=MINIBUGS.version, tasks=("org_chart",))
    write_suite_file(tmp_path / "few.json", few)
    assert main([str(recorded), *HERE, "--suite", str(tmp_path / "few.json")]) == 0
    assert "0 rollouts graded by few" in capsys.readouterr().out
