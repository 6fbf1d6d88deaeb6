"""The checker of data files: each fault with its line, the counts, and test tasks found in the data."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.records import Task
from sandboxes.workspace import Workspace
from suites.base import Suite, SuiteFile, load, write_suite_file
from suites.splits import split
from tests.test_trainers_formats import EXAMPLES, FENCED, LIST, READ, WRITE, write_rows
from tools.protocol import call_text, final_text
from trainers import data_check, data_cli
from trainers.data_check import CheckReport, LeakGuard, Source, check_file, leak_guard
from trainers.formats import RowFormat

SFT = EXAMPLES["SFT, step, Together and OpenAI"]
STEP_TRL = EXAMPLES["SFT, step, TRL"]
TRAJECTORY_TRL = EXAMPLES["SFT, trajectory, TRL"]
PAIR = EXAMPLES["Preference, Together and OpenAI"]
PAIR_TRL = EXAMPLES["Preference, TRL"]
GOOD = json.dumps(SFT).encode()
USER = {"role": "user", "content": "go on"}


def checked(tmp_path: Path, *lines: bytes) -> CheckReport:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return check_file(path)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b'{"messages": "\xff"}', "not UTF-8: byte 15 of the line"),
        (b'{"messages": [}', "not JSON: Expecting value at character 15"),
        (b'{"weight": NaN}', "not JSON that can be read: NaN is not JSON"),
        (b'{"weight": -Infinity}', "not JSON that can be read: -Infinity is not JSON"),
        (b"[" * 100_000, "not JSON that can be read: maximum recursion depth exceeded"),
        (b"[1]", "not a JSON object"),
        (b'{"messages": 1, "messages": 2}', "the key 'messages' stands twice in one object"),
        (b"", "a blank line"),
        (b" \t", "a blank line"),
        (b'{"x": "\\ud800", "prompt": 1, "chosen": 1, "rejected": 1}', "a string holds half of a surrogate pair"),
        (b'{"text": "a"}', "unknown columns, or those of several formats: text"),
        (b"{}", "unknown columns, or those of several formats: none"),
        (b'{"messages": [], "prompt": [], "completion": []}', "unknown columns, or those of several formats"),
    ],
)
def test_a_line_that_is_no_row_is_named_and_does_not_end_the_check(line: bytes, fault: str, tmp_path: Path) -> None:
    report = checked(tmp_path, GOOD, line, GOOD)
    assert [(found.line, found.text[: len(fault)]) for found in report.faults] == [(2, fault)]
    assert report.rows[RowFormat.SFT_WEIGHTED] == 2


def changed(row: dict[str, Any], change: Callable[[Any], object]) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(row))
    change(copy)
    return copy


@pytest.mark.parametrize(
    ("row", "change", "fault"),
    [
        (SFT, lambda row: row.update(id=1), "unknown column 'id'"),
        (PAIR, lambda row: row.update(confidence=1), "unknown column 'confidence'"),
        (PAIR_TRL, lambda row: row.update(input_ids=[1]), "unknown column 'input_ids'"),
        (PAIR, lambda row: row["input"].update(source="x"), "unknown key 'source' in input"),
        (SFT, lambda row: row["messages"][0].update(name="x"), "message 1: unknown key 'name'"),
        (TRAJECTORY_TRL, lambda row: row.update(messages=[]), "messages is empty"),
        (STEP_TRL, lambda row: row.update(prompt="text"), "prompt is not a list of messages"),
        (PAIR, lambda row: row.update(input=[]), "input.messages is not a list of messages"),
        (SFT, lambda row: row["messages"].insert(1, "x"), "message 2 is not an object"),
        (SFT, lambda row: row["messages"][1].update(role="tool"), "message 2: role 'tool' is none of"),
        (SFT, lambda row: row["messages"].insert(1, USER), "message 3: two messages of role 'user' in a row"),
        (
            SFT,
            lambda row: row["messages"][3].update(role="system"),
            "message 4: a system message that is not the first",
        ),
        (SFT, lambda row: row["messages"].pop(1), "the first message after the system's is the assistant's"),
        (SFT, lambda row: row["messages"][4].update(weight=0.5), "message 5: the weight is neither 0 nor 1"),
        (SFT, lambda row: row["messages"][2].update(weight=False), "message 3: the weight is neither 0 nor 1"),
        (SFT, lambda row: row["messages"][1].update(weight=0), "message 2: a weight on a message that takes none"),
        (PAIR, lambda row: row["preferred_output"][0].update(weight=1), "preferred_output, message 1: a weight on"),
        (SFT, lambda row: row["messages"][4].update(weight=0), "no assistant message is trained"),
        (SFT, lambda row: row["messages"].append(USER), "the last message is not the assistant's"),
        (SFT, lambda row: row["messages"][1].update(content=None), "message 2: the content is not a string"),
        (SFT, lambda row: row["messages"][1].update(content="\n"), "message 2: the content is empty"),
        (SFT, lambda row: row["messages"][4].update(content="I"), "message 5 is trained and is not strictly one"),
        (TRAJECTORY_TRL, lambda row: row["messages"][2].update(content=FENCED.content), "message 3 is trained and is"),
        (STEP_TRL, lambda row: row["completion"][0].update(content="I"), "the completion is trained and is not"),
        (STEP_TRL, lambda row: row["completion"].append(USER), "completion is not exactly one assistant message"),
        (STEP_TRL, lambda row: row["prompt"].pop(), "prompt ends with an assistant message"),
        (PAIR, lambda row: row["input"]["messages"].pop(), "input.messages ends with an assistant message"),
        (PAIR_TRL, lambda row: row["prompt"].pop(), "prompt ends with an assistant message"),
        (PAIR, lambda row: row.update(preferred_output=[]), "preferred_output is not exactly one assistant message"),
        (PAIR, lambda row: row.update(non_preferred_output=[USER]), "non_preferred_output is not exactly one"),
        (PAIR, lambda row: row.update(non_preferred_output=row["preferred_output"]), "preferred_output and non_pref"),
        (PAIR_TRL, lambda row: row.update(rejected=row["chosen"]), "chosen and rejected are equal"),
        (PAIR_TRL, lambda row: row["chosen"][0].update(content="I"), "chosen is trained and is not strictly one"),
    ],
)
def test_a_broken_rule_is_named_with_its_line(
    row: dict[str, Any], change: Callable[[Any], object], fault: str, tmp_path: Path
) -> None:
    report = check_file(write_rows(tmp_path / "rows.jsonl", row, changed(row, change)))
    assert [(found.line, found.text[: len(fault)]) for found in report.faults] == [(2, fault)]


def test_the_line_is_named_where_the_format_changes(tmp_path: Path) -> None:
    report = check_file(write_rows(tmp_path / "rows.jsonl", SFT, SFT, TRAJECTORY_TRL, TRAJECTORY_TRL))
    assert [(fault.line, fault.text) for fault in report.faults] == [
        (3, "the format changes from sft-weighted to sft-messages")
    ]


@pytest.mark.parametrize("content", [b"", data_check.BOM])
def test_an_empty_file_is_a_fault(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    assert [fault.text for fault in check_file(path).faults] == ["the file is empty"]


def test_a_byte_order_mark_is_noted_and_is_no_fault(tmp_path: Path) -> None:
    report = checked(tmp_path, data_check.BOM + GOOD)
    assert report.bom
    assert report.sound


def test_a_line_over_the_limit_is_a_fault_and_the_next_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_check, "MAX_LINE_BYTES", len(GOOD) + 1)
    report = checked(tmp_path, GOOD, b" " * 5 * len(GOOD), GOOD)
    assert [(fault.line, fault.text[:20]) for fault in report.faults] == [(2, "the line is longer t")]
    assert report.rows[RowFormat.SFT_WEIGHTED] == 2


def test_faults_are_counted_and_the_first_are_listed(tmp_path: Path) -> None:
    report = checked(tmp_path, *[b"[]"] * 50)
    assert report.fault_count == 50
    assert [fault.line for fault in report.faults] == list(range(1, data_check.MAX_LISTED + 1))


def test_rows_messages_trained_and_malformed_rejected_are_counted(tmp_path: Path) -> None:
    malformed = changed(PAIR, lambda row: row["non_preferred_output"][0].update(content=FENCED.content))
    report = check_file(write_rows(tmp_path / "rows.jsonl", PAIR, malformed))
    assert report.sound
    assert (report.pairs, report.messages, report.trained, report.malformed_rejected) == (2, 12, 2, 1)


def test_rows_that_train_their_last_message_only_are_counted(tmp_path: Path) -> None:
    trajectory = EXAMPLES["SFT, trajectory, Together and OpenAI"]
    report = check_file(write_rows(tmp_path / "rows.jsonl", SFT, trajectory))
    assert (report.trained, report.last_only) == (3, 1)


MIRROR = Path(os.environ["REPO_AGENT_MIRROR"]) if os.environ.get("REPO_AGENT_MIRROR") else None


@pytest.fixture(scope="module", params=["minibugs", "quixbugs"])
def suite(request: pytest.FixtureRequest) -> Suite:
    return load(request.param, MIRROR)


def edited_files(tree: Workspace, task: Task) -> list[tuple[str, str]]:
    return [(path, tree.file(path).content.decode()) for path in tree.paths if task.may_edit(path)]


def disguises(path: str, text: str) -> list[str]:
    """How a file's text comes to stand in a message."""
    call = call_text("write_file", rel_path=path, content=text)
    return [
        f"[tool_result]\n{text}",
        call,
        json.dumps({"type": "tool_call", "name": "write_file", "args": {"rel_path": path, "content": text}}, indent=1),
        f"I write:\n```json\n{call}\n```",
        f"[tool_result]\n{text.replace('    ', chr(9))}",
    ]


def test_every_file_of_a_test_task_is_found_however_it_is_written(suite: Suite) -> None:
    guard, test = leak_guard(suite.name, MIRROR), split([task.id for task in suite.tasks()])[1]
    for task in (task for task in suite.tasks() if task.id in test):
        for path, text in edited_files(task.tree, task):
            for content in disguises(path, text):
                assert guard.search({"messages": [{"role": "user", "content": content}]}).get(Source(task.id, path)), (
                    path
                )


def test_every_repair_of_a_test_task_is_found_as_one(suite: Suite) -> None:
    guard, test = leak_guard(suite.name, MIRROR), split([task.id for task in suite.tasks()])[1]
    for task in (task for task in suite.tasks() if task.id in test):
        repaired = suite.reference(task)
        assert repaired is not None
        found = [
            guard.search(content) for path, text in edited_files(repaired, task) for content in disguises(path, text)
        ]
        assert {source.task for hits in found for source in hits if source.reference} == {task.id}


def test_nothing_of_a_train_task_counts_as_a_leak(suite: Suite) -> None:
    guard, train = leak_guard(suite.name, MIRROR), split([task.id for task in suite.tasks()])[0]
    for task in (task for task in suite.tasks() if task.id in train):
        for tree in (task.tree, suite.reference(task) or task.tree):
            assert not guard.search([tree.file(path).content.decode() for path in tree.paths])


def test_the_tests_of_a_test_task_are_found() -> None:
    suite = load("minibugs")
    task = next(task for task in suite.tasks() if task.id == "poll_tally")
    path = task.expected_tests[0].partition("::")[0]
    found = leak_guard("minibugs").search(task.tree.file(path).content.decode())
    assert set(found) == {Source("poll_tally", path)}


def test_a_suite_file_guards_all_its_tasks(tmp_path: Path) -> None:
    suite = load("minibugs")
    train = split([task.id for task in suite.tasks()])[0][:1]
    path = tmp_path / "one.json"
    write_suite_file(path, SuiteFile(name="one", suite="minibugs", version=suite.version, tasks=tuple(train)))
    guard = leak_guard(str(path))
    for task in suite.tasks():
        found = guard.search([text for _, text in edited_files(task.tree, task)])
        assert bool(found) is (task.id in train)


def test_a_leak_is_reported_with_its_line_task_and_file(tmp_path: Path) -> None:
    suite = load("minibugs")
    task = next(task for task in suite.tasks() if task.id == "poll_tally")
    text = task.tree.file("polltally/poll.py").content.decode()
    row = changed(
        SFT, lambda row: row["messages"][4].update(content=call_text("write_file", rel_path="a", content=text))
    )
    guard = LeakGuard(suite, [task])
    report = check_file(write_rows(tmp_path / "rows.jsonl", SFT, row), guard)
    assert [(leak.line, leak.source) for leak in report.leaks] == [(2, Source("poll_tally", "polltally/poll.py"))]
    assert report.leaks[0].hits > 10
    assert report.leaked_rows == {"poll_tally": 1}
    assert not report.sound


def test_the_command_says_that_a_sound_file_is_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_rows(tmp_path / "rows.jsonl", PAIR)
    assert data_cli.main(["check", str(path), "--against", "minibugs"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "rows: 1 preference; 6 messages, 1 trained",
        "pairs whose rejected side is malformed: 0 of 1",
        "test tasks of minibugs in it: none",
        "sound",
    ]


def test_the_command_prints_faults_and_leaks_with_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = load("minibugs")
    task = next(task for task in suite.tasks() if task.id == "poll_tally")
    text = task.tree.file("polltally/poll.py").content.decode()
    leaking = changed(SFT, lambda row: row["messages"][1].update(content=text))
    path = write_rows(tmp_path / "rows.jsonl", {"text": "x"}, leaking)
    assert data_cli.main(["check", str(path), "--against", "minibugs"]) == 1
    out = capsys.readouterr().out
    assert f"{path}:1: unknown columns, or those of several formats: text\n" in out
    assert f"{path}:2: test task poll_tally: text of polltally/poll.py (" in out
    assert "test tasks of minibugs in it: poll_tally (1 rows)\nNOT sound: 1 faults, 1 leaks\n" in out


@pytest.mark.parametrize(
    "argv", [[], ["check"], ["check", "no/such/file"], ["check", "."], ["check", __file__, "--against", "nosuite"]]
)
def test_bad_input_to_the_command_is_a_usage_error(argv: list[str]) -> None:
    with pytest.raises(UsageError):
        data_cli.main(argv)


def test_finals_and_short_calls_are_no_leaks() -> None:
    assert not leak_guard("minibugs").search(
        [READ, LIST, WRITE, final_text("I fixed the off-by-one in polltally/poll.py")]
    )
