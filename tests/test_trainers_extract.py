"""Which rollouts and steps of trace logs become SFT rows, and what is left out and counted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.loops import Turn, in_loop
from harness.records import (
    Completion,
    ForkPoint,
    Rescore,
    Score,
    Step,
    StepScore,
)
from harness.trace_store import TraceStore
from tests.sft_logs import (
    FENCED,
    FINAL,
    LIST,
    PROMPT,
    READ,
    TESTS,
    actions,
    dropped,
    extract,
    header,
    log,
    noted,
    record,
    steps,
    write,
)
from tools.protocol import call_text, parse
from trainers.extract import loop_repeats

# ---- which rollouts and steps


def test_by_default_only_solved_rollouts_are_taken_and_unscored_is_not_solved(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with TraceStore(run) as store:
        for index, value in enumerate((0.0, None, 0.5, 1.0)):
            record(store, f"task#{index}", steps(call_text("read_file", rel_path=f"{index}.py")), value)
    assert actions(extract(run)) == [call_text("read_file", rel_path="3.py")]
    assert dropped(run, "rollouts") == {"not solved": 2, "not scored": 1}
    assert len(extract(run, "--no-require-success")) == 4


def test_a_rollout_that_has_not_ended_is_no_success(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with TraceStore(run) as store:
        recorder = store.recorder(header("task#0"))
        recorder.start(PROMPT)
        recorder.completion("s0000", None, Completion(text=LIST))
        recorder.outcome(steps(LIST)[0])
        recorder.completion("s0001", "s0000", Completion(text=READ))
    assert extract(run) == []
    assert actions(extract(run, "--no-require-success")) == [LIST]


def test_a_rescore_by_another_version_of_the_suite_decides_where_it_is_asked_for(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with TraceStore(run) as store:
        record(store, "task#0", steps(LIST), 0.0)
        score = Score(value=1.0)
        store.note(Rescore(rollout="task#0", suite_version="2", sandbox="local", isolation="run", score=score))
    assert extract(run) == []
    assert actions(extract(run, "--suite-version", "2")) == [LIST]


def test_a_message_that_is_not_strictly_one_object_is_never_a_target_but_may_be_context(tmp_path: Path) -> None:
    run = log(tmp_path / "run", steps(FENCED, "no call", READ), value=0.0)
    rows = extract(run, "--no-require-success", "--no-require-valid-tool-ok")
    assert actions(rows) == [READ]
    assert [message["content"] for message in rows[0]["messages"]][2] == FENCED
    assert dropped(run, "steps") == {"not strictly one protocol object": 2}


def test_a_step_whose_tool_gave_an_error_is_taken_only_without_the_filter(tmp_path: Path) -> None:
    run = log(tmp_path / "run", steps(LIST, READ, error=(1,)))
    assert actions(extract(run)) == [LIST]
    assert dropped(run, "steps") == {"the tool answered with an error": 1}
    assert actions(extract(run, "--no-require-valid-tool-ok")) == [LIST, READ]


def test_steps_after_an_empty_message_are_left_out_because_trainers_refuse_it(tmp_path: Path) -> None:
    run = log(tmp_path / "run", steps(LIST, "", READ))
    assert actions(extract(run)) == [LIST]
    assert dropped(run, "rows") == {"context that trainers refuse (an empty message, for example)": 1}


# ---- loops


def looping(*actions: str, failed: bool = False) -> list[Step]:
    """Steps with the flags that the loop detector gives them."""
    turns = [Turn(parse(text).canonical, "same", failed) for text in actions]
    flags = [index for index in range(len(actions)) if in_loop(turns[: index + 1])]
    return steps(*actions, loop=flags, observation="same")


def test_of_a_loop_the_first_step_stays_and_all_repeats_go() -> None:
    assert loop_repeats(looping(LIST, READ, READ, READ, READ, READ, LIST)) == {2, 3, 4, 5}


def test_of_two_steps_that_take_turns_the_first_of_each_stays() -> None:
    path = looping(LIST, READ, write("a"), READ, write("a"), READ, write("a"), FINAL)
    assert loop_repeats(path) == {3, 4, 5, 6}


def test_an_action_that_is_repeated_without_a_loop_stays() -> None:
    assert not loop_repeats(looping(READ, READ, LIST, READ, READ))


def test_repeats_of_a_loop_are_no_rows(tmp_path: Path) -> None:
    run = log(tmp_path / "run", looping(READ, READ, READ, READ, FINAL))
    assert actions(extract(run)) == [READ, FINAL]
    assert dropped(run, "steps") == {"repeat in a loop": 3}


# ---- the point of no return


def kept_of_failure(tmp_path: Path, path: Sequence[Step], value: float | None = 0.0) -> list[str]:
    return actions(extract(log(tmp_path / "run", path, value=value), "--no-require-success"))


def test_steps_after_the_last_gain_of_a_failure_are_left_out(tmp_path: Path) -> None:
    path = steps(LIST, write("a"), READ, write("b"), LIST, write("c"), FINAL, passed=[1, 2, 1])
    assert kept_of_failure(tmp_path, path) == [LIST, write("a"), READ, write("b")]


def test_without_a_gain_only_what_came_before_the_first_write_is_kept(tmp_path: Path) -> None:
    path = steps(LIST, READ, write("a"), write("b"), FINAL, passed=[2, 1])
    assert kept_of_failure(tmp_path, path) == [LIST, READ]


def test_a_failure_of_which_only_the_score_is_known_keeps_what_came_before_its_first_write(tmp_path: Path) -> None:
    assert kept_of_failure(tmp_path, steps(LIST, write("a"), FINAL)) == [LIST]


def test_a_rollout_of_which_nothing_was_measured_keeps_its_steps(tmp_path: Path) -> None:
    assert kept_of_failure(tmp_path, steps(LIST, write("a"), FINAL), value=None) == [LIST, write("a"), FINAL]


def test_step_scores_are_believed_before_feedback_reports(tmp_path: Path) -> None:
    run, path = tmp_path / "run", steps(LIST, write("a"), write("b"), FINAL, passed=[1, 2])
    run.mkdir()
    with TraceStore(run) as store:
        record(store, "task#0", path, 0.0)
        noted(store, "task#0", path, 2, 2, 3, 3, 3)
    assert actions(extract(run, "--no-require-success")) == [LIST, write("a")]


def test_improving_only_keeps_of_the_writes_those_that_raised_the_number_of_passing_tests(tmp_path: Path) -> None:
    run, path = tmp_path / "run", steps(LIST, write("a"), write("b"), READ, write("c"), FINAL)
    run.mkdir()
    with TraceStore(run) as store:
        record(store, "task#0", path)
        noted(store, "task#0", path, 2, 2, 3, 1, 1, 4, 4)
    assert actions(extract(run, "--improving-only")) == [LIST, write("a"), READ, write("c"), FINAL]
    assert dropped(run, "steps") == {"write without a known gain of passing tests": 1}


def test_a_first_write_that_passes_all_tests_is_a_gain_without_step_scores(tmp_path: Path) -> None:
    run = log(tmp_path / "run", steps(LIST, write("a"), FINAL, passed=[4]))
    assert actions(extract(run, "--improving-only")) == [LIST, write("a"), FINAL]


# ---- duplicates, forks, order


def test_equal_messages_and_action_make_one_row_over_all_logs(tmp_path: Path) -> None:
    log(tmp_path / "runs" / "one", steps(LIST, READ, FINAL))
    log(tmp_path / "runs" / "two", steps(LIST, READ, write("x"), FINAL))
    assert actions(extract(tmp_path / "runs")) == [LIST, READ, FINAL, write("x"), FINAL]
    assert dropped(tmp_path / "runs", "rows") == {"same messages and action as another row": 2}


def test_steps_that_a_fork_shares_are_rows_once(tmp_path: Path) -> None:
    run, parent = tmp_path / "run", steps(LIST, READ, write("a"), FINAL)
    run.mkdir()
    with TraceStore(run) as store:
        record(store, "task#0", parent)
        fork = ForkPoint(rollout="task#0", step="s0001")
        record(store, "task#0@1", [*parent[:2], *steps(LIST, READ, write("b"), FINAL)[2:]], shared=2, fork=fork)
    rows = extract(run)
    assert actions(rows) == [LIST, READ, write("a"), FINAL, write("b"), FINAL]
    assert [message["content"] for message in rows[4]["messages"]][:5] == [
        message["content"] for message in rows[2]["messages"]
    ][:5]


def test_a_solved_fork_of_a_failure_brings_the_steps_that_they_share(tmp_path: Path) -> None:
    run, parent = tmp_path / "run", steps(LIST, READ, write("a"), FINAL)
    run.mkdir()
    with TraceStore(run) as store:
        record(store, "task#0", parent, 0.0)
        fork = ForkPoint(rollout="task#0", step="s0001")
        record(store, "task#0@1", [*parent[:2], *steps(LIST, READ, write("b"), FINAL)[2:]], shared=2, fork=fork)
    assert actions(extract(run)) == [LIST, READ, write("b"), FINAL]


def test_a_fork_has_the_step_scores_of_the_steps_that_it_shares(tmp_path: Path) -> None:
    run, parent = tmp_path / "run", steps(LIST, write("a"), write("b"))
    run.mkdir()
    with TraceStore(run) as store:
        record(store, "task#0", parent, 0.0)
        noted(store, "task#0", parent, 1, 1, 3, 1)
        fork, own = ForkPoint(rollout="task#0", step="s0001"), steps(LIST, write("a"), write("c"))
        record(store, "task#0@1", own, 0.0, shared=2, fork=fork)
        store.note(
            StepScore(
                rollout="task#0@1", step="s0002", suite_version="1", digest=own[2].digest, passed=2, expected=len(TESTS)
            )
        )
    assert actions(extract(run, "--no-require-success")) == [LIST, write("a")]


def test_the_output_does_not_depend_on_the_order_in_which_rollouts_ended(tmp_path: Path) -> None:
    names = [f"{task}#{index}" for task in ("b", "a") for index in (1, 0, 2)]
    files = []
    for number, order in enumerate((names, sorted(names))):
        run = tmp_path / str(number) / "run"
        run.mkdir(parents=True)
        with TraceStore(run) as store:
            for name in order:
                record(store, name, steps(LIST, call_text("read_file", rel_path=name)))
        extract(run)
        files.append((run.parent / "rows.jsonl").read_bytes())
    assert files[0] == files[1]
