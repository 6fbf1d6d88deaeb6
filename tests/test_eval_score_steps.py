"""`repo-agent score-steps`: the number of passing tests after each edit, kept as notes and shown in the report."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import repo_agent
from eval.metrics import curve
from eval.report import Report, print_curves, sparkline
from eval.score_steps_cli import main
from eval.step_scores import TreeGrader, score_steps
from harness.records import ForkPoint, StepScore, Trace
from harness.run_files import REPORT_FILE
from harness.trace_reader import read_traces
from sandboxes.base import SandboxError
from sandboxes.guest_sandbox import GuestSandbox
from sandboxes.local_sandbox import LocalBackend
from suites.base import load

pytestmark = pytest.mark.slow

MINIBUGS = load("minibugs")
TASKS = {task.id: task for task in MINIBUGS.tasks()}
HERE = ("--sandbox", "local", "--no-verdict-cache")


def evaluate(run: Path, *flags: str) -> Path:
    assert repo_agent.main(["eval", *HERE, "--trace-dir", str(run), "--limit", "1", *flags]) == 0
    return run


@pytest.fixture
def searched(tmp_path: Path) -> Path:
    return evaluate(tmp_path / "run", "--max-iters", "12")


def only(run: Path) -> Trace:
    (trace,) = read_traces(run)
    return trace


def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests of the trees that are tested, in time."""
    seen: list[str] = []
    original = GuestSandbox.run

    def run(self: GuestSandbox, tree: Any, command: Any) -> Any:
        seen.append(tree.digest)
        return original(self, tree, command)

    monkeypatch.setattr(GuestSandbox, "run", run)
    return seen


def test_tree_after_each_edit_is_scored_and_the_one_before_the_first(searched: Path) -> None:
    assert main([str(searched), *HERE]) == 0
    trace = only(searched)
    digests = [TASKS[trace.header.task].tree.digest, *(step.digest for step in trace.steps)]
    changed = [now for before, now in itertools.pairwise(digests) if now != before]
    scores = trace.step_scores()
    assert next(iter(scores)) is None
    assert [score.digest for score in scores.values()] == [digests[0], *changed]
    assert {score.expected for score in scores.values()} == {len(TASKS[trace.header.task].expected_tests)}


def test_passing_tests_rise_to_all_with_the_reference(tmp_path: Path) -> None:
    run = evaluate(tmp_path / "run", "--llm-provider", "reference")
    assert main([str(run), *HERE]) == 0
    ((start, first, _), (number, last, expected)) = curve(only(run))
    assert (start, number) == (0, 3)
    assert first < last == expected


def test_what_was_scored_is_not_scored_again(searched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main([str(searched), *HERE]) == 0
    notes, again = only(searched).notes, runs(monkeypatch)
    assert main([str(searched), *HERE]) == 0
    assert (only(searched).notes, again) == (notes, [])


def test_each_tree_of_a_task_is_tested_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = evaluate(tmp_path / "run", "--llm-provider", "reference", "--rollouts", "3")
    tested = runs(monkeypatch)
    assert main([str(run), *HERE]) == 0
    assert len(tested) == len(set(tested)) == 2
    assert [len(trace.notes) for trace in read_traces(run)] == [2, 2, 2]


def test_fork_leaves_the_shared_steps_to_the_rollout_that_played_them(tmp_path: Path) -> None:
    trace = only(evaluate(tmp_path / "run", "--llm-provider", "reference"))
    point = ForkPoint(rollout=trace.header.rollout, step=trace.steps[0].id)
    fork = trace.model_copy(update={"header": trace.header.model_copy(update={"fork": point}), "shared": 1})
    shared = fork.model_copy(update={"shared": len(trace.steps)})
    backend, written = LocalBackend(), list[StepScore]()
    grader = TreeGrader(TASKS, MINIBUGS.version, backend)
    score_steps(fork, grader, written.append)
    score_steps(shared, grader, written.append)
    backend.close()
    assert [note.step for note in written] == [trace.steps[2].id]


def test_fault_is_noted_as_unknown_and_scored_the_next_time(searched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise SandboxError("engine down")

    with monkeypatch.context() as patch:
        patch.setattr(LocalBackend, "open", broken)
        assert main([str(searched), *HERE]) == 3
    (note,) = only(searched).step_scores().values()
    assert (note.passed, note.why) == (None, "SandboxNotStarted: engine down")
    assert curve(only(searched)) == ()
    assert main([str(searched), *HERE]) == 0
    assert curve(only(searched))[0][0] == 0


def test_curves_stand_in_the_report(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads((searched / REPORT_FILE).read_text())
    assert before.pop("curves") == {}
    assert main([str(searched), *HERE]) == 0
    after = json.loads((searched / REPORT_FILE).read_text())
    assert after.pop("curves") == {"account_transfer#0": [list(point) for point in curve(only(searched))]}
    assert after == before
    Report.model_validate_json((searched / REPORT_FILE).read_bytes())
    assert "expected tests that pass, after each edit:\naccount_transfer#0  " in capsys.readouterr().out


def test_run_that_is_reported_again_keeps_its_curves(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(searched), *HERE]) == 0
    scored = (searched / REPORT_FILE).read_text()
    evaluate(searched, "--max-iters", "12", "--resume")
    assert json.loads((searched / REPORT_FILE).read_text())["curves"] == json.loads(scored)["curves"]
    assert "expected tests that pass" in capsys.readouterr().out


def test_run_without_a_report_is_scored_too(searched: Path) -> None:
    (searched / REPORT_FILE).unlink()
    assert main([str(searched), *HERE]) == 0
    assert not (searched / REPORT_FILE).exists()
    (searched / REPORT_FILE).write_text("{}")
    assert main([str(searched), *HERE]) == 0
    assert (searched / REPORT_FILE).read_text() == "{}"


def test_sparkline_goes_from_none_to_all_and_is_bounded() -> None:
    points = tuple((number, number, 100) for number in range(101))
    assert sparkline(((0, 0, 4), (1, 2, 4), (2, 4, 4))) == "▁▄█"
    assert len(sparkline(points)) == 40
    assert (sparkline(points)[0], sparkline(points)[-1]) == ("▁", "█")
    assert sparkline(((0, 0, 0),)) == "▁"


def test_curves_that_are_left_out_are_counted() -> None:
    console = Console(file=io.StringIO(), width=100)
    print_curves({f"t#{number}": ((0, 1, 2), (3, 2, 2)) for number in range(5)}, console, most=2)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert [line.split() for line in lines[1:3]] == [
        [f"t#{n}", lines[1].split()[1], *"1 to 2 of 2".split()] for n in (0, 1)
    ]
    assert lines[3:] == ["and 3 more rollouts"]
