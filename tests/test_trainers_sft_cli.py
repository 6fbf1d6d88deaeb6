"""`repo-agent sft-extract`: the form of the rows, limits, the test split, files and faults."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.trace_reader import TraceLog
from harness.trace_store import TraceStore
from suites.base import SuiteFile, load, write_suite_file
from tests.sft_logs import (
    FENCED,
    FINAL,
    LIST,
    PROMPT,
    READ,
    actions,
    dropped,
    extract,
    log,
    messages_of,
    record,
    steps,
    weights,
    write,
)
from tools.protocol import call_text
from trainers.card import card_paths
from trainers.formats import Target, sft_row, trajectory_row

# ---- the form of the rows


@pytest.mark.parametrize("target", list(Target))
def test_step_rows_are_byte_for_byte_what_the_formats_module_makes(tmp_path: Path, target: Target) -> None:
    run = log(tmp_path / "run", steps(LIST, READ, write("x = 'é\u2028\\n'\n"), FINAL))
    extract(run, "--target", target)
    with TraceLog(run) as read:
        messages = messages_of(read.trace("task#0"))
    rows = [sft_row(messages[:at], messages[at].content, target) for at in (2, 4, 6, 8)]
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows]
    assert (tmp_path / "rows.jsonl").read_bytes() == "".join(lines).encode()


@pytest.mark.parametrize("target", list(Target))
def test_trajectory_rows_are_byte_for_byte_what_the_formats_module_makes(tmp_path: Path, target: Target) -> None:
    run = log(tmp_path / "run", steps(LIST, READ, write("x\n"), FINAL))
    extract(run, "--target", target, "--granularity", "trajectory")
    with TraceLog(run) as read:
        row = trajectory_row(messages_of(read.trace("task#0")), (True,) * 4, target)
    line = json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"
    assert (tmp_path / "rows.jsonl").read_bytes() == line.encode()


def test_messages_of_a_trajectory_that_may_not_be_trained_have_weight_0(tmp_path: Path) -> None:
    run = log(tmp_path / "run", steps(FENCED, READ, call_text("read_file", rel_path="b.py"), FINAL, error=(2,)))
    assert [weights(row) for row in extract(run, "--granularity", "trajectory")] == [[0, 1, 0, 1]]


def test_a_trajectory_ends_with_its_last_trained_message(tmp_path: Path) -> None:
    run = log(tmp_path / "run", steps(LIST, READ, write("wrong"), FINAL, passed=[1]), value=0.0)
    (row,) = extract(run, "--granularity", "trajectory", "--no-require-success", "--target", "trl")
    assert actions([row]) == [READ]


def test_a_trajectory_with_a_message_that_trl_would_train_wrongly_is_left_out_and_counted(tmp_path: Path) -> None:
    run = log(tmp_path / "run", steps(LIST, FENCED, FINAL), steps(LIST, READ, FINAL))
    rows = extract(run, "--granularity", "trajectory", "--target", "trl")
    assert actions(rows) == [FINAL]
    assert dropped(run, "rollouts") == {"TRL cannot leave one of its messages untrained": 1}


# ---- limits


def test_rows_over_max_tokens_are_left_out_and_never_cut(tmp_path: Path) -> None:
    run = log(tmp_path / "run", steps(LIST, write("x" * 4000), FINAL))
    whole = extract(run)
    assert extract(run, "--max-tokens", "500") == whole[:1]
    assert dropped(run, "rows") == {"over --max-tokens": 2}


def test_a_tokenizer_counts_the_tokens(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "tokenizer").mkdir()
    words.save(str(tmp_path / "tokenizer" / "tokenizer.json"))
    prompt = sum(len(words.encode(message.content).ids) + 5 for message in PROMPT)
    needed = prompt + len(words.encode(LIST).ids) + 5
    run = log(tmp_path / "run", steps(LIST, READ))
    for place in (tmp_path / "tokenizer", tmp_path / "tokenizer" / "tokenizer.json"):
        assert actions(extract(run, "--tokenizer", str(place), "--max-tokens", str(needed))) == [LIST]
    assert extract(run, "--tokenizer", str(place), "--max-tokens", str(needed - 1)) == []


def test_at_most_so_many_rows_of_a_task_are_taken(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with TraceStore(run) as store:
        for name in ("a#0", "a#1", "b#0"):
            record(store, name, steps(LIST, call_text("read_file", rel_path=name), FINAL))
    assert actions(extract(run, "--limit-per-task", "2")) == [
        LIST,
        call_text("read_file", rel_path="a#0"),
        call_text("read_file", rel_path="b#0"),
        FINAL,
    ]
    assert dropped(run, "rows")["over --limit-per-task"] == 3


# ---- the test split


def split_log(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    run.mkdir()
    with TraceStore(run) as store:
        record(store, "a#0", steps(LIST, FINAL), split="train")
        record(store, "b#0", steps(READ, FINAL), split="test")
    return run


def test_rollouts_of_the_test_split_are_refused_unless_forced(tmp_path: Path) -> None:
    run = split_log(tmp_path)
    with pytest.raises(UsageError, match=r"1 tasks of the test split \(b\).*--allow-test-split"):
        extract(run)
    assert not (tmp_path / "rows.jsonl").exists()
    assert len(extract(run, "--allow-test-split")) == 4
    card = card_paths(tmp_path / "rows.jsonl")[1].read_text(encoding="utf-8")
    assert "WARNING: rows from 1 tasks of a test split are in this file: b." in card


def test_rollouts_of_the_test_split_can_be_left_out(tmp_path: Path) -> None:
    run = split_log(tmp_path)
    assert actions(extract(run, "--skip-test-split")) == [LIST, FINAL]
    assert dropped(run, "rollouts") == {"of the test split": 1}
    card = card_paths(tmp_path / "rows.jsonl")[1].read_text(encoding="utf-8")
    assert "No row comes from a task of a test split." in card


def test_tasks_of_a_given_suite_file_count_as_test_split(tmp_path: Path) -> None:
    run, suite = tmp_path / "run", load("minibugs")
    task = suite.tasks()[0].id
    run.mkdir()
    with TraceStore(run) as store:
        record(store, f"{task}#0", steps(LIST), split="train")
    write_suite_file(
        tmp_path / "held.json", SuiteFile(name="held", suite="minibugs", version=suite.version, tasks=(task,))
    )
    with pytest.raises(UsageError, match=task):
        extract(run, "--test-suite", str(tmp_path / "held.json"))


# ---- files


def test_only_trace_logs_below_a_directory_are_read(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    log(runs / "deep" / "one", steps(LIST))
    log(runs / "two", steps(READ))
    log(runs / "rows.paths", steps(FINAL))
    for name in ("_prefs.jsonl", "report.json", "rows.card.json"):
        (runs / "two" / name).write_text("not a trace\n")
    assert actions(extract(runs)) == [LIST, READ]
    assert actions(extract(runs / "two" / "traces.jsonl", output=tmp_path / "other.jsonl")) == [READ]


def test_an_output_inside_the_trace_directory_is_no_source_of_the_next_extraction(tmp_path: Path) -> None:
    run = log(tmp_path / "run", steps(LIST, READ))
    first = extract(run, output=run / "sft.jsonl")
    assert extract(run, output=run / "sft.jsonl") == first


def test_a_torn_last_line_is_said_and_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = log(tmp_path / "run", steps(LIST))
    with (run / "traces.jsonl").open("ab") as file:
        file.write(b'{"event":"comp')
    assert actions(extract(run)) == [LIST]
    assert "torn line of 14 bytes" in capsys.readouterr().err


def test_an_output_that_is_a_log_is_refused(tmp_path: Path) -> None:
    run = log(tmp_path / "run", steps(LIST))
    before = (run / "traces.jsonl").read_bytes()
    for output in (run / "traces.jsonl", tmp_path / "traces.jsonl", run):
        with pytest.raises(UsageError, match="--output"):
            extract(run, output=output)
    assert (run / "traces.jsonl").read_bytes() == before


def test_a_bad_log_leaves_the_output_as_it_was(tmp_path: Path) -> None:
    run, output = log(tmp_path / "run", steps(LIST), steps(READ)), tmp_path / "rows.jsonl"
    output.write_text("before\n")
    lines = (run / "traces.jsonl").read_bytes().splitlines(keepends=True)
    lines[-2] = lines[-2].replace(b'"id":', b'"di":')
    (run / "traces.jsonl").write_bytes(b"".join(lines))
    with pytest.raises(UsageError, match=r"traces\.jsonl:7: not an event of a trace"):
        extract(run)
    assert output.read_text() == "before\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl", "run"]


@pytest.mark.parametrize(
    "flags",
    [
        ("--trace-dir", "nowhere"),
        ("--format", "xml"),
        ("--limit-per-task", "0"),
        ("--tokenizer", "."),
        ("--allow-test-split", "--skip-test-split"),
    ],
)
def test_bad_input_is_a_usage_error(tmp_path: Path, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    run = log(tmp_path / "run", steps(LIST))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        extract(run, *flags)
    assert "\n" not in str(caught.value)


def test_no_rows_is_said_with_the_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert extract(log(tmp_path / "run", steps(LIST), value=0.0)) == []
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("NO ROWS")
    assert said[1] == "rollouts left out: 1 not solved"


def test_a_long_rollout_makes_rows_that_each_begin_with_the_one_before(tmp_path: Path) -> None:
    path = steps(*(call_text("read_file", rel_path=f"{index}.py") for index in range(50)))
    rows = extract(log(tmp_path / "run", path), "--target", "trl")
    assert len(rows) == 50
    for before, after in pairwise(rows):
        assert after["prompt"][: len(before["prompt"]) + 1] == before["prompt"] + before["completion"]
