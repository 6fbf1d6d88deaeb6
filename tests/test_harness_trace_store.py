"""The log: what is written when, what survives a crash, and that it reads back as it was."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.records import (
    FORMAT_VERSION,
    Completion,
    FinishReason,
    ForkPoint,
    Header,
    Message,
    Rescore,
    Sampling,
    Score,
    Step,
    StepScore,
    StopReason,
    TestPolicy,
    TestReport,
    Trace,
    Usage,
)
from harness.redaction import MASK, Redactor
from harness.rollout import RolloutEnded
from harness.trace_reader import TraceLog, read_traces
from harness.trace_store import TRACES, TraceStore
from tools.files import ToolErrorKind
from tools.protocol import call_text, final_text, parse

SECRET = 'sk-abcdefgh"12345'
PROMPT = (Message(role="system", content="s"), Message(role="user", content="GOAL: é ✓ \u2028"))
ENDED = RolloutEnded(StopReason.FINAL, Score(value=1.0, why="ok", parts={"a": 1.0}), patch="diff", score_seconds=0.5)


def header(rollout: str = "task#0") -> Header:
    return Header(
        rollout=rollout,
        task="task",
        suite="demo",
        index=0,
        policy="scripted",
        sampling=Sampling(seed=7),
        test_policy=TestPolicy.ON_WRITE,
        expected_tests=("t::a",),
    )


def step(number: int, text: str, **more: Any) -> Step:
    parent = f"s{number - 1:04d}" if number else None
    return Step(
        id=f"s{number:04d}",
        parent=parent,
        completion=Completion(text=text),
        call=parse(text),
        observation="seen",
        **more,
    )


REPORT = TestReport(outcomes={"t::a": "failed"}, expected=("t::a",), messages={"t::a": "assert 0"}, seconds=0.25)
STEPS = [
    step(0, call_text("write_file", rel_path="a.py", content="x = '\n'"), report=REPORT, digest="d", tool_seconds=0.1),
    step(1, "```\n" + call_text("grep", pattern="(") + "\n```", error=ToolErrorKind.BAD_PATTERN),
    step(2, "no call at all", error=ToolErrorKind.PARSE, loop=True),
    step(3, final_text("done")),
]


def record(store: TraceStore, rollout: str = "task#0", steps: list[Step] = STEPS) -> Trace:
    recorder = store.recorder(header(rollout))
    recorder.start(PROMPT)
    for each in steps:
        recorder.completion(each.id, each.parent, each.completion)
        recorder.outcome(each)
    recorder.done(ENDED.stop)
    recorder.end(ENDED)
    return recorder.trace


def events(store: TraceStore) -> list[str]:
    return [json.loads(line)["event"] for line in store.path.read_bytes().splitlines()]


def without_messages(trace: Trace) -> Trace:
    """What the log keeps: a report's messages stand in the observation already."""
    steps = [
        each.model_copy(update={"report": each.report.model_copy(update={"messages": {}})}) if each.report else each
        for each in trace.steps
    ]
    return trace.model_copy(update={"steps": tuple(steps)})


def test_trace_reads_back_as_it_was_recorded(tmp_path: Path) -> None:
    with TraceStore(tmp_path) as store:
        trace = record(store)
    assert trace.steps[0].report == REPORT
    assert list(read_traces(tmp_path)) == [without_messages(trace)]
    assert list(read_traces(tmp_path / TRACES)) == [without_messages(trace)]


def test_everything_of_a_completion_reads_back(tmp_path: Path) -> None:
    completion = Completion(
        text=final_text("é"),
        finish_reason=FinishReason.LENGTH,
        usage=Usage(prompt_tokens=3),
        cost_usd=0.1,
        token_ids=(1, 2),
        logprobs=(-0.5, -math.inf),
        seconds=1.5,
        attempts=3,
        faults=("429", "timeout"),
    )
    with TraceStore(tmp_path) as store:
        trace = record(store, steps=[step(0, completion.text).model_copy(update={"completion": completion})])
    assert list(read_traces(tmp_path)) == [trace]


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=4),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_any_texts_read_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str], patch: str) -> None:
    folder = tmp_path_factory.mktemp("store")
    steps = [step(number, text).model_copy(update={"observation": text}) for number, text in enumerate(texts)]
    with TraceStore(folder, Redactor({})) as store:
        recorder = store.recorder(header())
        recorder.start(PROMPT)
        for each in steps:
            recorder.completion(each.id, each.parent, each.completion)
            recorder.outcome(each)
        recorder.end(RolloutEnded(StopReason.ERROR, Score(value=None), error=patch, patch=patch))
    assert list(read_traces(folder)) == [recorder.trace]


def test_completion_is_on_disk_before_its_outcome(tmp_path: Path) -> None:
    with TraceStore(tmp_path) as store:
        recorder = store.recorder(header())
        recorder.start(PROMPT)
        recorder.completion("s0000", None, STEPS[0].completion)
        assert events(store) == ["start", "completion"]
        recorder.outcome(STEPS[0])
        recorder.done(StopReason.FINAL)
        recorder.end(ENDED)
    assert events(store) == ["start", "completion", "outcome", "done", "end"]


def test_text_of_a_step_is_written_once(tmp_path: Path) -> None:
    with TraceStore(tmp_path) as store:
        record(store, steps=[step(0, call_text("write_file", rel_path="a.py", content="unique-text"))])
    assert store.path.read_text().count("unique-text") == 1


def test_rollout_that_never_ended_is_read_without_a_stop(tmp_path: Path) -> None:
    with TraceStore(tmp_path) as store:
        recorder = store.recorder(header("killed"))
        recorder.start(PROMPT)
        recorder.completion("s0000", None, STEPS[0].completion)
        recorder.outcome(STEPS[0])
        recorder.completion("s0001", "s0000", STEPS[1].completion)
        record(store, "whole")
    whole, killed = read_traces(tmp_path)
    assert (whole.header.rollout, whole.stop) == ("whole", StopReason.FINAL)
    assert (killed.header.rollout, killed.stop, len(killed.steps)) == ("killed", None, 1)


def test_rollouts_of_several_threads_do_not_mix(tmp_path: Path) -> None:
    traces: list[Trace] = []
    with TraceStore(tmp_path) as store:
        threads = [threading.Thread(target=lambda n=n: traces.append(record(store, f"task#{n}"))) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    read = {trace.header.rollout: trace for trace in read_traces(tmp_path)}
    assert read == {trace.header.rollout: without_messages(trace) for trace in traces}


def test_torn_last_line_is_skipped_by_a_reader(tmp_path: Path) -> None:
    with TraceStore(tmp_path) as store:
        record(store)
    whole = store.path.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for length in range(last, len(whole)):
        store.path.write_bytes(whole[:length])
        with TraceLog(tmp_path) as log:
            assert log.torn_bytes == length - last
            (trace,) = log
        assert trace.stop is None
        assert len(trace.steps) == len(STEPS)


def test_torn_last_line_is_cut_off_by_the_next_writer(tmp_path: Path) -> None:
    with TraceStore(tmp_path) as store:
        record(store, "first")
    store.path.write_bytes(store.path.read_bytes()[:-5])
    with TraceStore(tmp_path) as store:
        assert store.torn_bytes > 0
        record(store, "second")
    assert [(trace.header.rollout, trace.stop) for trace in read_traces(tmp_path)] == [
        ("second", StopReason.FINAL),
        ("first", None),
    ]


def test_second_writer_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    with TraceStore(tmp_path) as store:
        trace = record(store)
        with pytest.raises(UsageError, match="another process is writing"):
            TraceStore(tmp_path)
        imports = "import sys; from pathlib import Path; from harness.trace_store import TraceStore"
        code = f"{imports}; TraceStore(Path(sys.argv[1]))"
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
        assert "another process is writing" in other.stderr
    assert list(read_traces(tmp_path)) == [without_messages(trace)]


def test_other_format_version_is_refused(tmp_path: Path) -> None:
    with TraceStore(tmp_path) as store:
        record(store)
    text = store.path.read_text()
    assert f'"format":{FORMAT_VERSION}' in text
    store.path.write_text(text.replace(f'"format":{FORMAT_VERSION}', '"format":99'))
    with pytest.raises(UsageError, match=f"trace format 99, this version reads {FORMAT_VERSION}"):
        list(read_traces(tmp_path))


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[]",
        "null",
        '{"event": "unknown"}',
        '{"event": "end"}',
        '{"event": "outcome", "rollout": "x", "step": {"id": "s0000"}}',
        json.dumps({"event": "completion", "rollout": "x", "step": "s", "parent": None, "completion": {"text": "a"}}),
        json.dumps({"event": "start", "format": FORMAT_VERSION, "time": 1, "header": {}}),
    ],
)
def test_foreign_line_is_refused_with_its_place(tmp_path: Path, line: str) -> None:
    (tmp_path / TRACES).write_text(line + "\n")
    with pytest.raises(UsageError, match=TRACES):
        list(read_traces(tmp_path))


def test_missing_log_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read traces"):
        list(read_traces(tmp_path))


# ---- taken up again


def kill_after(directory: Path, count: int) -> None:
    """A log of which only the first `count` lines were written."""
    with TraceStore(directory) as store:
        record(store)
    lines = store.path.read_bytes().splitlines(keepends=True)
    store.path.write_bytes(b"".join(lines[:count]))


@pytest.mark.parametrize("count", range(1, 11))
def test_rollout_killed_at_any_event_is_completed_without_writing_a_thing_twice(tmp_path: Path, count: int) -> None:
    kill_after(tmp_path, count)
    with TraceStore(tmp_path) as store:
        with TraceLog(tmp_path) as log:
            there = log.trace("task#0")
        recorder = store.recorder(header(), there)
        recorder.start(PROMPT)
        left = STEPS[len(there.steps) :]
        for each in left:
            if not (each is left[0] and recorder.past.pending):
                recorder.completion(each.id, each.parent, each.completion)
            recorder.outcome(each)
        recorder.done(StopReason.FINAL)
        recorder.end(ENDED)
    expected = ["start", *["completion", "outcome"] * len(STEPS), "done", "end"]
    assert events(store) == expected
    (trace,) = read_traces(tmp_path)
    assert [each.id for each in trace.steps] == [each.id for each in STEPS]
    assert trace.finished


def test_last_completion_without_an_outcome_is_pending(tmp_path: Path) -> None:
    kill_after(tmp_path, 4)
    (trace,) = read_traces(tmp_path)
    assert (len(trace.steps), trace.pending, trace.finished) == (1, STEPS[1].completion, False)


def test_later_end_of_a_rollout_that_was_spoilt_counts(tmp_path: Path) -> None:
    with TraceStore(tmp_path) as store:
        recorder = store.recorder(header())
        recorder.start(PROMPT)
        recorder.completion("s0000", None, STEPS[0].completion)
        recorder.outcome(STEPS[0])
        recorder.done(StopReason.FINAL)
        recorder.end(RolloutEnded(StopReason.ERROR, Score(value=None), error="engine down"))
        (spoilt,) = read_traces(tmp_path)
        assert (spoilt.finished, spoilt.done) == (False, StopReason.FINAL)
        again = store.recorder(header(), spoilt)
        assert again.past.stop is StopReason.FINAL
        again.start(PROMPT)
        again.done(StopReason.FINAL)
        again.end(ENDED)
    (trace,) = read_traces(tmp_path)
    assert (trace.stop, trace.score, trace.finished) == (StopReason.FINAL, ENDED.score, True)
    assert events(store).count("done") == 1


# ---- forks


def fork(store: TraceStore, name: str, parent: Trace, count: int, steps: list[Step]) -> Trace:
    """A rollout that goes on after the first `count` steps of another."""
    point = ForkPoint(rollout=parent.header.rollout, step=parent.steps[count - 1].id if count else None)
    shared = parent.model_copy(update={"steps": parent.steps[:count], "pending": None})
    recorder = store.recorder(header(name).model_copy(update={"fork": point}), shared)
    recorder.start(PROMPT)
    for each in steps:
        recorder.completion(each.id, each.parent, each.completion)
        recorder.outcome(each)
    recorder.done(ENDED.stop)
    recorder.end(ENDED)
    return recorder.trace


def test_fork_shares_its_prefix_in_the_store(tmp_path: Path) -> None:
    with TraceStore(tmp_path) as store:
        parent = record(store)
        other = [step(2, call_text("list_files")), step(3, final_text("other"))]
        child = fork(store, "task#0@s0001", parent, 2, other)
        grandchild = fork(store, "task#0@s0002", child, 3, [step(3, final_text("third"))])
    with TraceLog(tmp_path) as log:
        assert [trace.header.rollout for trace in log] == ["task#0", "task#0@s0001", "task#0@s0002"]
        for made in (child, grandchild):
            assert log.trace(made.header.rollout) == without_messages(made)
    assert [each.completion.text for each in grandchild.steps] == [
        *(each.completion.text for each in STEPS[:2]),
        call_text("list_files"),
        final_text("third"),
    ]
    assert events(store).count("completion") == len(STEPS) + 2 + 1


def test_leaves_are_the_paths_that_nobody_goes_on_from(tmp_path: Path) -> None:
    with TraceStore(tmp_path) as store:
        parent = record(store, steps=STEPS[:2])
        fork(store, "on", parent, 2, STEPS[2:])
        fork(store, "aside", parent, 1, [step(1, final_text("x"))])
    with TraceLog(tmp_path) as log:
        assert [trace.header.rollout for trace in log.leaves()] == ["on", "aside"]


def test_fork_of_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with TraceStore(tmp_path) as store:
        fork(store, "child", record(store), 2, STEPS[2:])
    lines = [line for line in store.path.read_bytes().splitlines(keepends=True) if b'"child"' in line]
    store.path.write_bytes(b"".join(lines))
    with pytest.raises(UsageError, match="forked from task#0, which is not there"):
        list(read_traces(tmp_path))


@pytest.mark.parametrize(("child", "parent"), [("a", "a"), ("a", "b")])
def test_fork_that_comes_from_itself_is_refused(tmp_path: Path, child: str, parent: str) -> None:
    with TraceStore(tmp_path) as store:
        for name, origin in ((child, parent), (parent, child)) if child != parent else ((child, parent),):
            point = ForkPoint(rollout=origin, step="s0000")
            store.recorder(header(name).model_copy(update={"fork": point})).start(PROMPT)
    with pytest.raises(UsageError, match="forked from itself"):
        list(read_traces(tmp_path))


# ---- damage


@pytest.mark.parametrize("lost", [(3, 4), (5, 6), (1, 2)])
def test_log_that_lost_a_step_is_refused(tmp_path: Path, lost: tuple[int, int]) -> None:
    with TraceStore(tmp_path) as store:
        record(store)
    lines = store.path.read_bytes().splitlines(keepends=True)
    store.path.write_bytes(b"".join(line for number, line in enumerate(lines) if number not in lost))
    with pytest.raises(UsageError, match="lines are lost"):
        list(read_traces(tmp_path))


def test_log_that_was_written_twice_is_refused(tmp_path: Path) -> None:
    with TraceStore(tmp_path) as store:
        record(store)
    store.path.write_bytes(store.path.read_bytes() * 2)
    with pytest.raises(UsageError, match="rollout task#0 starts a second time"):
        list(read_traces(tmp_path))


def test_call_that_its_text_does_not_hold_is_refused(tmp_path: Path) -> None:
    with TraceStore(tmp_path) as store:
        record(store, steps=[step(0, call_text("list_files"))])
    store.path.write_bytes(store.path.read_bytes().replace(b'{\\"type\\"', b'no{\\"type\\"'))
    with pytest.raises(UsageError, match="is not the call that it says"):
        list(read_traces(tmp_path))


def test_write_that_fails_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TraceStore(tmp_path) as store:
        record(store, "first")
        whole, write = store.path.read_bytes(), os.write

        def full(file: int, data: bytes) -> int:
            write(file, data[:40])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            record(store, "second")
        monkeypatch.undo()
        assert store.path.read_bytes() == whole
        record(store, "third")
    assert [trace.header.rollout for trace in read_traces(tmp_path)] == ["first", "third"]


# ---- notes


def test_latest_rescore_of_a_suite_version_wins(tmp_path: Path) -> None:
    def rescore(version: str, value: float) -> Rescore:
        score = Score(value=value)
        return Rescore(rollout="task#0", suite_version=version, sandbox="local", isolation="container", score=score)

    with TraceStore(tmp_path) as store:
        record(store)
        for version, value in [("v1", 0.0), ("v2", 0.5), ("v1", 0.25)]:
            store.note(rescore(version, value))
    (trace,) = read_traces(tmp_path)
    assert trace.score == ENDED.score
    assert [trace.grade(version) for version in ("v1", "v2", "v3")] == [Score(value=0.25), Score(value=0.5), None]
    assert trace.grade() == ENDED.score


def test_step_scores_are_found_by_step(tmp_path: Path) -> None:
    def note(name: str | None, passed: int) -> StepScore:
        return StepScore(rollout="task#0", step=name, suite_version="", digest="d", passed=passed, expected=3)

    with TraceStore(tmp_path) as store:
        record(store)
        for name, passed in [(None, 0), ("s0000", 1), ("s0000", 2)]:
            store.note(note(name, passed))
    (trace,) = read_traces(tmp_path)
    assert {name: score.passed for name, score in trace.step_scores().items()} == {None: 0, "s0000": 2}


# ---- secrets


def test_secrets_are_masked_wherever_they_stand(tmp_path: Path) -> None:
    steps = [
        step(0, f"my key is {SECRET}"),
        step(1, call_text("write_file", rel_path="a.py", content=f"key = {SECRET}")),
    ]
    with TraceStore(tmp_path, Redactor({"SOME_API_KEY": SECRET})) as store:
        recorder = store.recorder(header())
        recorder.start((Message(role="user", content=SECRET),))
        for each in steps:
            recorder.completion(each.id, each.parent, each.completion)
            recorder.outcome(each.model_copy(update={"observation": f"saw {SECRET}"}))
        recorder.end(RolloutEnded(StopReason.ERROR, Score(value=None, why=SECRET), error=SECRET, patch=SECRET))
    text = store.path.read_text()
    assert "abcdefgh" not in text
    (trace,) = read_traces(tmp_path)
    assert trace.error == MASK
    assert trace.steps[0].observation == f"saw {MASK}"


def test_secret_that_looks_like_a_part_of_the_log_does_not_break_it(tmp_path: Path) -> None:
    secrets = {"A_TOKEN": "completion", "B_TOKEN": "12345678", "C_TOKEN": "test_policy"}
    with TraceStore(tmp_path, Redactor(secrets)) as store:
        record(store, steps=[step(0, final_text("a"), tool_seconds=0.12345678)])
    (trace,) = read_traces(tmp_path)
    assert trace.steps[0].tool_seconds == 0.12345678


@pytest.mark.parametrize(
    ("name", "masked"),
    [
        ("OPENAI_API_KEY", True),
        ("HF_TOKEN", True),
        ("AWS_SECRET_ACCESS_KEY", True),
        ("db_password", True),
        ("GOOGLE_CREDENTIALS", True),
        ("SECRET_VALUE", True),
        ("TOKENIZERS_PARALLELISM", False),
        ("KEYBOARD", False),
        ("PATH", False),
    ],
)
def test_secrets_are_known_by_the_name_of_their_variable(name: str, masked: bool) -> None:
    assert (Redactor({name: "value-of-it"})("a value-of-it b") == f"a {MASK} b") is masked


def test_short_values_are_left_alone_and_longer_secrets_go_first() -> None:
    redact = Redactor(
        {"A_KEY": "short", "B_KEY": "longsecret", "C_KEY": "longsecret-and-more"}, more=("given-besides",)
    )
    assert redact("short longsecret-and-more longsecret given-besides") == f"short {MASK} {MASK} {MASK}"


def test_no_secret_at_all_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPO_AGENT_TEST_KEY", "from-the-environment")
    assert Redactor({})("from-the-environment") == "from-the-environment"
    assert Redactor()("from-the-environment") == MASK


def test_half_of_a_surrogate_pair_does_not_stop_the_log(tmp_path: Path) -> None:
    with TraceStore(tmp_path) as store:
        recorder = store.recorder(header())
        recorder.start(PROMPT)
        recorder.end(RolloutEnded(StopReason.ERROR, Score(value=None), error="\ud800 said the service"))
    (trace,) = read_traces(tmp_path)
    assert trace.error == "? said the service"
