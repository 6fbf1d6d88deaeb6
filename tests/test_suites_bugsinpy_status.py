"""The status file: what is written comes back, in order, whoever else writes at the same time."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.errors import UsageError
from suites.bugsinpy.status import BugStatus, State, parse_status, read_status, shipped_status, write_status
from tests.small_disk import small_disk

WRITER = """
import sys
from pathlib import Path
from suites.bugsinpy.status import BugStatus, State, write_status
for number in range(20):
    bug = f"{sys.argv[2]}-{number}"
    write_status(Path(sys.argv[1]), {bug: BugStatus(bug=bug, state=State.FLAKY)})
"""


def status(bug: str, state: State = State.REPRODUCED, **more: object) -> BugStatus:
    return BugStatus.model_validate({"bug": bug, "state": state, **more})


def states(*bugs: str) -> dict[str, BugStatus]:
    return {bug: status(bug) for bug in bugs}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "new" / "status.jsonl"


def test_what_is_written_comes_back(file: Path) -> None:
    text = "line\u2028separator, \x85, \x0b, \r\n, größe, \x00"
    full = status(
        "a-1", why=text, expected=("t.py::x",), failing=("t.py::x",), messages={"t.py::x": text}, run_s=1.5, repeats=2
    )
    write_status(file, {"a-1": full})
    assert read_status(file) == {"a-1": full}


def test_no_file_is_no_states(file: Path) -> None:
    assert read_status(file) == {}
    assert parse_status("", "x") == {}


def test_states_are_merged_and_the_newer_one_stands(file: Path) -> None:
    write_status(file, states("a-1", "a-2"))
    newer = status("a-2", State.FLAKY, why="at times")
    write_status(file, {"a-2": newer} | states("a-3"))
    assert read_status(file) == states("a-1", "a-3") | {"a-2": newer}


def test_lines_are_in_the_order_of_projects_and_numbers(file: Path) -> None:
    write_status(file, states("tally-10", "you-get-2", "tally-9", "PySnooper-1", "tally-100", "you-get-11", "odd-name"))
    bugs = [BugStatus.model_validate_json(line).bug for line in file.read_text().splitlines()]
    assert bugs == ["PySnooper-1", "odd-name", "tally-9", "tally-10", "tally-100", "you-get-2", "you-get-11"]


def test_a_file_with_the_same_states_has_the_same_bytes(file: Path) -> None:
    write_status(file, states("b-1", "a-1"))
    before = file.read_bytes()
    write_status(file, states("a-1", "b-1"))
    assert file.read_bytes() == before


def test_defaults_take_no_room_and_others_may_read_it(file: Path) -> None:
    write_status(file, states("a-1"))
    assert file.read_text() == '{"bug":"a-1","state":"reproduced"}\n'
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert os.listdir(file.parent) == [file.name]


def test_writers_in_other_processes_and_threads_lose_nothing(file: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(file), name]) for name in "ab"]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: write_status(file, states(f"c-{number}")), range(40)))
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert set(read_status(file)) == {*(f"{name}-{number}" for name in "ab" for number in range(20))} | {
        f"c-{number}" for number in range(40)
    }


def test_a_reader_never_sees_half_a_file(file: Path) -> None:
    write_status(file, {f"a-{number}": status(f"a-{number}", why="x" * 1000) for number in range(100)})
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(file), "b"])
    while writer.poll() is None:
        assert len(read_status(file)) >= 100
        time.sleep(0.001)
    assert len(read_status(file)) == 120


@pytest.mark.parametrize(
    "line",
    [
        '{"bug":"a-2","state":"reprod',
        '{"bug":"a-2","state":"solved"}',
        '{"bug":"a-2","state":"flaky","new":1}',
        '["a-2"]',
        "<<<<<<< HEAD",
    ],
    ids=["torn", "unknown state", "unknown field", "no object", "no JSON"],
)
def test_a_line_that_is_no_status_is_named_by_its_number(file: Path, line: str) -> None:
    write_status(file, states("a-1"))
    file.write_text(file.read_text() + line + "\n")
    for attempt in (lambda: read_status(file), lambda: write_status(file, states("a-3"))):
        with pytest.raises(UsageError, match=r"^\S*status.jsonl, line 2: not the status of a bug: [^\n]+$"):
            attempt()
    assert file.read_text().endswith(line + "\n")


@pytest.mark.parametrize("content", [b"\xff\xfe", None], ids=["not UTF-8", "a folder"])
def test_what_cannot_be_read_is_one_line(file: Path, content: bytes | None) -> None:
    file.parent.mkdir()
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(UsageError, match=r"^cannot read the status file [^\n]+$"):
        read_status(file)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"^cannot write the status file \S+: [^\n]+$"):
        write_status(tmp_path / "file" / "status.jsonl", states("a-1"))


def test_a_full_disk_is_one_line_and_the_old_states_stay(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk"):
        file = tmp_path / "disk" / "status.jsonl"
        write_status(file, states("a-1"))
        with pytest.raises(UsageError, match=r"^cannot write the status file \S+: No space left on device$"):
            write_status(file, {"a-2": status("a-2", why="x" * 2**21)})
        assert read_status(file) == states("a-1")
        assert os.listdir(file.parent) == [file.name]


def test_the_shipped_states_can_be_read() -> None:
    for bug, known in shipped_status().items():
        assert known.bug == bug
        assert set(known.failing) <= set(known.expected)
        assert bool(known.failing) == (known.state is State.REPRODUCED)
        assert not set(known.expected) & set(known.quarantined)
