"""`repo-agent compare`: which tests are taken, what is said, and what may not be compared."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest

import repo_agent
from eval.compare import compared, solved_test
from eval.compare_records import Compared, TestName
from eval.compare_runs import arms_of
from harness.records import ForkPoint, Rescore, Score
from harness.run_files import read_config
from harness.statistics import wilson_interval
from harness.trace_store import TraceStore
from tests.compared_runs import played, single, write_rollout


def compare(*runs: Path) -> Compared:
    return compared(arms_of(runs))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Eleven tasks: of the first three the second run solves two, of the others six more."""
    first = played(tmp_path / "before", single(3, 11))
    later = single(9, 11) | {"task00": [False]}
    return first, played(tmp_path / "after", later)


def test_with_one_rollout_a_task_the_verdict_is_mcnemars(pair: tuple[Path, Path]) -> None:
    (found,) = compare(*pair).comparisons
    assert found.verdict == (
        "6 gained, 1 lost, p = 0.13: no evidence of a difference; "
        "14 more tasks would be needed to see one of this size with 80% power"
    )
    assert found.solved
    assert (found.solved.test, found.solved.p) == (TestName.MCNEMAR, 0.125)
    assert [flip.task for flip in found.solved.lost] == ["task00"]
    assert [flip.task for flip in found.solved.gained] == [f"task{number:02}" for number in range(3, 9)]


def test_six_gained_and_none_lost_is_evidence(tmp_path: Path) -> None:
    found = compare(played(tmp_path / "a", single(0, 8)), played(tmp_path / "b", single(6, 8)))
    assert found.comparisons[0].verdict == "6 gained, none lost, p = 0.031: evidence that b solves more than a"
    assert found.comparisons[0].solved
    assert found.comparisons[0].solved.more_tasks is None


def test_a_loss_is_told_as_one(tmp_path: Path) -> None:
    found = compare(played(tmp_path / "a", single(6, 8)), played(tmp_path / "b", single(0, 8)))
    assert found.comparisons[0].verdict.endswith("evidence that b solves less than a")


def test_equal_arms_name_no_number_of_tasks(tmp_path: Path) -> None:
    found = compare(played(tmp_path / "a", single(4, 8)), played(tmp_path / "b", single(4, 8)))
    assert found.comparisons[0].verdict == "no task was gained or lost, p = 1: no evidence of a difference"
    turned = compare(tmp_path / "a", played(tmp_path / "c", {f"task{n:02}": [n >= 4] for n in range(8)}))
    assert "both solve equally many" in turned.comparisons[0].verdict


def test_a_difference_too_small_for_any_number_of_tasks_within_reason_is_said_to_be_so(tmp_path: Path) -> None:
    later = {f"task{number:02}": [4 <= number < 25] for number in range(40)}  # 5 gained, 4 lost
    found = compare(played(tmp_path / "a", single(20, 40)), played(tmp_path / "b", later))
    assert "; more than 1,000 more tasks would be needed" in found.comparisons[0].verdict


def test_several_rollouts_a_task_are_compared_by_flipping_signs_of_the_tasks_means(tmp_path: Path) -> None:
    first = {f"t{number}": [False] * 4 for number in range(8)}
    second = {f"t{number}": [number < 5, number < 5, False, False] for number in range(8)}
    found = compare(played(tmp_path / "a", first), played(tmp_path / "b", second))
    solved = found.comparisons[0].solved
    assert solved
    assert (solved.test, solved.p) == (TestName.SIGN_FLIPS, 2 / 2**5)
    verdict = found.comparisons[0].verdict
    assert verdict.startswith("better on 5 tasks, worse on none, p = 0.063: no evidence")
    assert "tasks, played as often, would be needed" in verdict
    assert found.arms[1].pass_at_k == {"2": pytest.approx(5 / 8 * 5 / 6), "4": 5 / 8}
    assert found.arms[1].interval == pytest.approx(wilson_interval(5 / 16, 8))


def test_one_rollout_against_several_is_no_case_for_mcnemar(tmp_path: Path) -> None:
    second = {task: its * 3 for task, its in single(2, 5).items()}
    found = compare(played(tmp_path / "a", single(1, 5)), played(tmp_path / "b", second))
    assert found.comparisons[0].solved
    assert found.comparisons[0].solved.test is TestName.SIGN_FLIPS
    assert found.arms[0].pass_at_k == {}


def test_of_several_arms_each_is_compared_with_the_first_and_p_is_corrected(tmp_path: Path) -> None:
    runs = [played(tmp_path / name, single(count, 8)) for name, count in (("a", 0), ("b", 6), ("c", 5))]
    found = compare(*runs)
    assert [(each.first, each.second) for each in found.comparisons] == [("a", "b"), ("a", "c")]
    assert [each.solved.adjusted for each in found.comparisons if each.solved] == [0.0625, 0.0625]
    assert "p = 0.031 (p = 0.063 after correction for 2 comparisons): no evidence" in found.comparisons[0].verdict


def test_other_metrics_are_corrected_for_being_several(pair: tuple[Path, Path]) -> None:
    metrics = compare(*pair).comparisons[0].metrics
    assert [each.name for each in metrics] == ["steps", "tokens", "parse errors", "loops", "seconds"]
    assert all(each.adjusted >= each.p for each in metrics)


def test_unscored_rollouts_are_left_out_and_counted_in_words(tmp_path: Path) -> None:
    first = played(tmp_path / "a", {"t1": [True, None], "t2": [False, False], "t3": [None, None]})
    found = compare(first, played(tmp_path / "b", {"t1": [True, True], "t2": [True, True], "t3": [True, True]}))
    assert found.tasks == ("t1", "t2")
    assert found.left_out == {"t3": "no rollout that counts in a"}
    assert "a: 3 of 6 rollouts are unscored, and are left out" in found.notes
    assert found.arms[0].rollouts == 3


def test_a_rescored_rollout_counts_with_its_grade(tmp_path: Path) -> None:
    first, second = (played(tmp_path / name, {"t1": [None]}) for name in "ab")
    score = Score(value=1.0)
    for run in (first, second):
        with TraceStore(run) as store:
            store.note(Rescore(rollout="t1#0", suite_version="v1", sandbox="docker", isolation="run", score=score))
    assert [arm.solved for arm in compare(first, second).arms] == [1, 1]


def test_forked_rollouts_are_left_out_and_counted_in_words(tmp_path: Path) -> None:
    first, second = (played(tmp_path / name, {"t1": [True]}) for name in "ab")
    with TraceStore(second) as store:
        fork = ForkPoint(rollout="t1#0", step=None)
        write_rollout(store, read_config(second), "t1", 0, False, rollout="t1#0/f", fork=fork)
    found = compare(first, second)
    assert found.arms[1].solved == found.arms[1].rollouts == 1
    assert "b: 1 forked rollouts are left out" in found.notes


def test_a_run_that_did_not_end_is_said_to_be_incomplete(tmp_path: Path) -> None:
    part = played(tmp_path / "part", {"t1": [True]}, tasks=("t1", "t2", "t3"))
    found = compare(part, played(tmp_path / "whole", {"t1": [True], "t2": [True], "t3": [False]}))
    assert "part is not complete: 2 of 3 rollouts were not played" in found.notes
    assert found.tasks == ("t1",)


def test_tasks_that_one_side_has_alone_are_named_and_left_out(tmp_path: Path) -> None:
    found = compare(played(tmp_path / "a", single(1, 4)), played(tmp_path / "b", single(1, 4, first=2)))
    assert found.tasks == ("task02", "task03")
    assert found.left_out == {
        "task00": "not among the tasks of b",
        "task01": "not among the tasks of b",
        "task04": "not among the tasks of a",
        "task05": "not among the tasks of a",
    }


def test_of_another_version_of_the_suite_tasks_that_changed_are_left_out(tmp_path: Path) -> None:
    first = played(tmp_path / "a", single(1, 3))
    second = played(tmp_path / "b", single(1, 3), suite_version="v2", goals={"task01": "another"})
    found = compare(first, second)
    assert found.left_out == {"task01": "its goal or its tests are not the same in all arms"}
    assert "not a fair comparison, other version of the suite: a v1; b v2" in found.warnings


UNFAIR: dict[str, dict[str, Any]] = {
    "--test-policy": {"test_policy": "final"},
    "--max-iters": {"max_iters": 5},
    "--temperature": {"temperature": 0.0},
    "--max-tokens": {"max_tokens": 100},
    "--stop-on-loop": {"stop_on_loop": True},
    "constrain": {"extra": {"constrain": "json"}},
    "oracle": {"oracle": True},
}


@pytest.mark.parametrize("flag", UNFAIR)
def test_a_setting_that_is_not_the_same_is_warned_of(flag: str, tmp_path: Path) -> None:
    found = compare(played(tmp_path / "a", single(1, 3)), played(tmp_path / "b", single(1, 3), **UNFAIR[flag]))
    (warning,) = found.warnings
    assert warning.startswith(f"not a fair comparison, other {flag}: a ")


def test_other_budgets_and_prompts_are_warned_of(tmp_path: Path) -> None:
    def origin(cost: float | None, prompts: str) -> dict[str, object]:
        flags = {"max_cost": cost, "max_total_tokens": None}
        return {"origin": {"command": "eval", "flags": flags, "whole_suite": "minibugs", "prompts_sha256": prompts}}

    runs = [
        played(tmp_path / name, single(1, 3), about=origin(*of)) for name, of in (("a", (None, "x")), ("b", (2, "y")))
    ]
    assert compare(*runs).warnings == (
        "not a fair comparison, other --max-cost: a none; b 2",
        "not a fair comparison, other prompts: a x; b y",
    )


def test_what_was_not_tested_has_no_verdict_but_its_metrics(tmp_path: Path) -> None:
    first, second = (played(tmp_path / name, {"t1": [False], "t2": [False]}, test_policy="never") for name in "ab")
    found = compare(first, second)
    assert found.comparisons[0].solved is None
    assert found.comparisons[0].verdict.startswith("not tested")
    assert len(found.comparisons[0].metrics) == 5


# ---- arms


def test_seeds_in_one_directory_are_pooled_as_rollouts(tmp_path: Path) -> None:
    for name, solved in (("weak", 0), ("strong", 3)):
        for seed in range(3):
            played(tmp_path / f"{name}-{seed}", single(solved, 4), model=name, seed=seed)
    found = compare(tmp_path)
    assert [(arm.name, arm.seeds, arm.rollouts) for arm in found.arms] == [
        ("strong", (0, 1, 2), 12),
        ("weak", (0, 1, 2), 12),
    ]
    assert found.arms[0].pass_at_k == {"2": 0.75, "3": 0.75}
    assert "strong is 3 runs: seeds 0, 1, 2" in found.notes


def test_seeds_that_are_named_one_by_one_are_pooled_where_something_is_left_to_compare(tmp_path: Path) -> None:
    runs = [played(tmp_path / f"{name}{seed}", single(1, 4), model=name, seed=seed) for name in "ab" for seed in (0, 1)]
    assert [arm.name for arm in compare(*runs).arms] == ["a", "b"]
    assert [arm.name for arm in compare(*runs[:2]).arms] == ["a0", "a1"]


def test_a_repetition_with_the_same_seed_is_an_arm_of_its_own(tmp_path: Path) -> None:
    runs = [played(tmp_path / name, single(1, 4)) for name in ("once", "again")]
    assert [arm.name for arm in compare(*runs).arms] == ["once", "again"]
    assert len(compare(tmp_path).arms) == 2


@pytest.mark.parametrize("depth", [1, 2])
def test_folds_with_a_model_each_are_one_arm(tmp_path: Path, depth: int) -> None:
    base = played(tmp_path / "base", single(2, 12), model="base")
    folds = tmp_path / "folds" / "trained" if depth == 2 else tmp_path / "folds"
    for fold in range(3):
        played(folds / str(fold), single(3, 4, first=4 * fold), model=f"fold{fold}", suite=f"part{fold}")
    found = compare(base, tmp_path / "folds")
    assert [(arm.name, len(arm.models), arm.solved) for arm in found.arms] == [("base", 1, 2), ("folds", 3, 9)]
    assert len(found.tasks) == 12


def test_runs_of_equal_names_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    runs = [played(tmp_path / place / "run", single(1, 3)) for place in "ab"]
    assert [arm.name for arm in compare(*runs).arms] == [str(run) for run in runs]


# ---- the command


def run(*arguments: object) -> int:
    return repo_agent.main(["compare", *map(str, arguments)])


def test_the_command_prints_and_writes_what_it_found(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*pair, "--json", tmp_path / "c.json", "--markdown", tmp_path / "c.md") == 0
    said, written = capsys.readouterr().out, (tmp_path / "c.md").read_text(encoding="utf-8")
    for text in (said, written):
        assert "6 gained, 1 lost, p = 0.13: no evidence of a difference" in text
        assert "lost: task00" in text
        assert "3 of 11" in text
    assert "| after | 8 of 11 | 0.727 (0.43 to 0.90) | 11 | 0 |" in written
    data: dict[str, Any] = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert list(data) == ["format", "suite", "tasks", "left_out", "warnings", "notes", "arms", "comparisons"]
    assert Compared.model_validate(data) == compare(*pair)


def test_names_from_runs_are_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = played(tmp_path / "[red]a|b", {"[bold]t": [True]})
    assert run(first, played(tmp_path / "c", {"[bold]t": [False]}), "--markdown", tmp_path / "c.md") == 0
    assert "[red]a|b" in capsys.readouterr().out
    assert "| [red]a\\|b | 1 of 1 |" in (tmp_path / "c.md").read_text(encoding="utf-8")


def test_reports_compare_as_their_runs_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, provider in (("a", "noop"), ("b", "reference")):
        flags = ["--llm-provider", provider, "--limit", "2", "--sandbox", "local", "--trace-dir", str(tmp_path / name)]
        assert repo_agent.main(["eval", *flags]) == 0
    capsys.readouterr()
    assert run(tmp_path / "a", tmp_path / "b") == 0
    of_runs = capsys.readouterr().out
    assert run(tmp_path / "a" / "report.json", tmp_path / "b" / "report.json") == 0
    assert capsys.readouterr().out == of_runs
    assert "2 gained, none lost, p = 0.5" in of_runs
    assert "WARNING: not a fair comparison, other oracle" in of_runs


def bad_input(folder: Path) -> dict[str, list[Path | str]]:
    run_a = played(folder / "a", single(1, 3))
    other = played(folder / "other", single(1, 3), suite="quixbugs", suite_version="q")
    apart = played(folder / "apart", single(1, 3, first=3), model="n")
    empty = played(folder / "empty", {}, tasks=("t",))
    (folder / "broken.json").write_text("{")
    (folder / "nothing").mkdir()
    return {
        "no run": [folder / "nosuch"],
        "one run": [run_a],
        "no runs in a directory": [run_a, folder / "nothing"],
        "a broken report": [run_a, folder / "broken.json"],
        "another suite": [run_a, other],
        "no common task": [run_a, apart],
        "a run without rollouts": [run_a, empty],
        "a run's own file": [run_a, apart, "--json", run_a / "traces.jsonl"],
        "a directory": [run_a, run_a, "--markdown", folder],
        "a place that is not there": [run_a, run_a, "--json", folder / "nosuch" / "c.json"],
    }


BAD_INPUT = (
    "no run",
    "one run",
    "no runs in a directory",
    "a broken report",
    "another suite",
    "no common task",
    "a run without rollouts",
    "a run's own file",
    "a directory",
    "a place that is not there",
)


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_exit_code_2(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*bad_input(tmp_path)[case]) == 2
    assert re.fullmatch(r"repo-agent: error: .+\n", capsys.readouterr().err)


# ---- the primary test in worlds without an effect


def no_effect(generator: random.Random, tasks: int, first: int, second: int) -> tuple[dict[str, list[float]], ...]:
    """Two sides that solve each task equally often; tasks are of all difficulties, many never or always solved."""
    chances = [min(1.0, max(0.0, generator.uniform(-0.3, 1.3))) for _ in range(tasks)]
    return tuple(
        {
            str(task): [float(generator.random() < chance) for _ in range(rollouts)]
            for task, chance in enumerate(chances)
        }
        for rollouts in (first, second)
    )


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [8, 12, 40])
@pytest.mark.parametrize(("first", "second"), [(1, 1), (5, 5), (1, 5)])
def test_without_an_effect_the_primary_test_finds_one_in_at_most_one_of_twenty_comparisons(
    tasks: int, first: int, second: int
) -> None:
    generator, trials = random.Random(f"{tasks} {first} {second}"), 4_000
    found = sum(solved_test(*no_effect(generator, tasks, first, second))[1] <= 0.05 for _ in range(trials))
    assert found / trials <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / trials)
