"""What a run shows of itself while it goes on, and keeps in progress.jsonl."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import harness.progress
from harness.budget import Budget
from harness.progress import ProgressView, progress_view
from harness.progress_log import PROGRESS_FILE, Beat, ProgressLog, Unit, decode_progress
from harness.progress_screens import rate_words, span
from harness.progress_workers import Doing, Workers
from harness.records import Completion, Message, StopReason
from harness.rollout import Recorder
from tests.small_disk import small_disk


def unheard(line: str) -> None:
    raise AssertionError(line)


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / PROGRESS_FILE).read_text().splitlines()]


class Terminal:
    """Standard error where it is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True


class Silent:
    """A recorder that keeps nothing."""

    def start(self, prompt: tuple[Message, ...]) -> None: ...
    def completion(self, step_id: str, parent: str | None, completion: Completion) -> None: ...
    def outcome(self, step: Any) -> None: ...
    def done(self, stop: StopReason) -> None: ...
    def end(self, end: Any) -> None: ...


def doing(workers: Workers) -> list[tuple[str, int, Doing]]:
    return [(each.rollout, each.step, each.doing) for each in workers.now]


def test_a_worker_is_where_the_events_of_its_rollout_say() -> None:
    workers, seen = Workers(), []
    with workers.on("t#0"):
        seen += doing(workers)
        watched: Recorder = workers.watched(Silent(), "t#0", steps=0, pending=False)
        watched.start(())
        seen += doing(workers)
        watched.completion("s0000", None, Completion(text=""))
        seen += doing(workers)
        watched.outcome(None)  # type: ignore[arg-type]
        seen += doing(workers)
        watched.done(StopReason.MAX_ITERS)
        seen += doing(workers)
    assert [each[1:] for each in seen] == [
        (1, Doing.OPENING),
        (1, Doing.MODEL),
        (1, Doing.ACTING),
        (2, Doing.MODEL),
        (1, Doing.SCORING),
    ]
    assert workers.now == []


def test_a_rollout_that_is_taken_up_goes_on_counting_its_steps() -> None:
    workers = Workers()
    workers.watched(Silent(), "t#0", steps=4, pending=True).start(())
    assert doing(workers) == [("t#0", 5, Doing.ACTING)]


def test_a_line_says_solved_so_far_rate_cost_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    budget = Budget()
    budget.cost_usd = 0.25
    with progress_view(4, budget=budget) as progress:
        time.sleep(0.02)
        progress.done("a#0 solved", True)
        progress.done("b#0 no score", None)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("[1/4] 0 s, ")
    assert first.endswith("/s, 0 s left, 0.2500 USD, 1 solved: a#0 solved")
    assert second.endswith("1 solved, 1 unscored: b#0 no score")


def test_where_nothing_ends_for_long_a_line_says_what_the_workers_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness.progress, "TICK_S", 0.01)
    monkeypatch.setattr("harness.progress_screens.STILL_S", 0.05)
    with progress_view(2) as progress, progress.workers.on("a#0"):
        time.sleep(0.2)
    assert "now: a#0 step 1 is being opened, 0 s" in capsys.readouterr().err


def test_a_terminal_shows_a_bar_with_the_workers_under_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress_view(2) as progress, progress.workers.on("a[b]#0"):
        progress.done("z#0 solved", True)
        time.sleep(0.7)
    assert "1 solved" in terminal.text
    assert "a[b]#0 step 1 is being opened" in terminal.text


def test_the_log_holds_who_what_each_unit_and_how_the_run_was_left(tmp_path: Path) -> None:
    with ProgressLog(tmp_path, unheard) as log, progress_view(2, log=log, before=(3, 1)) as progress:
        with progress.workers.on("a#0"):
            progress.done("z#0 solved", True)
        log.leave("stopped", "5 rollouts in a row failed")
    began, phase, unit, beat, over = lines(tmp_path)
    assert [each["event"] for each in (began, phase, unit, beat, over)] == "began phase unit beat over".split()
    assert (phase["total"], phase["before"], phase["before_good"]) == (2, 3, 1)
    assert (unit["done"], unit["good"], unit["line"]) == (1, 1, "z#0 solved")
    assert [each["rollout"] for each in beat["workers"]] == ["a#0"]
    assert (over["state"], over["why"]) == ("stopped", "5 rollouts in a row failed")


@pytest.mark.parametrize(("error", "state"), [(KeyboardInterrupt(), "interrupted"), (ZeroDivisionError(), "failed")])
def test_an_error_that_passes_by_says_how_the_run_was_left(tmp_path: Path, error: BaseException, state: str) -> None:
    with pytest.raises(type(error)), ProgressLog(tmp_path, unheard):
        raise error
    assert lines(tmp_path)[-1]["state"] == state


def test_a_log_goes_on_behind_half_a_line_that_a_killed_process_left(tmp_path: Path) -> None:
    (tmp_path / PROGRESS_FILE).write_text('{"event":"unit","li')
    with ProgressLog(tmp_path, unheard):
        pass
    torn, *whole = (tmp_path / PROGRESS_FILE).read_bytes().splitlines()
    assert decode_progress(torn) is None
    assert [type(decode_progress(line)).__name__ for line in whole] == ["Began", "Over"]


def test_keys_are_masked_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sesame-open-0815")
    with ProgressLog(tmp_path, unheard) as log, progress_view(1, log=log) as progress:
        progress.done("a#0: 401 for sesame-open-0815", None)
    text = (tmp_path / PROGRESS_FILE).read_text()
    assert "sesame" not in text
    assert "[redacted]" in text


def test_a_full_disk_is_said_once_and_the_run_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    disk = tmp_path / "disk"
    with small_disk(disk), ProgressLog(disk, said.append) as log:
        for _ in range(30):
            log.write(Unit(what="rollouts", time=0.0, line="x" * 2**16))
    assert len(said) == 1
    assert "cannot write" in said[0]


def test_of_very_many_workers_the_log_keeps_those_that_have_waited_longest(tmp_path: Path) -> None:
    with ProgressLog(tmp_path, unheard) as log, progress_view(99, log=log) as progress:
        for number in range(50):
            progress.workers.say(f"t#{number}", 1, Doing.MODEL)
        progress.done("z#0 solved", True)
    (beat,) = [
        each
        for each in map(decode_progress, (tmp_path / PROGRESS_FILE).read_bytes().splitlines())
        if isinstance(each, Beat)
    ]
    assert [each.rollout for each in beat.workers] == [f"t#{number}" for number in range(32)]
    assert beat.busy == 50


def end_twenty(progress: ProgressView) -> None:
    for _ in range(20):
        progress.done("x", True)


def test_units_may_end_in_many_threads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressLog(tmp_path, unheard) as log, progress_view(200, log=log) as progress:
        threads = [threading.Thread(target=end_twenty, args=(progress,)) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [each["done"] for each in lines(tmp_path) if each["event"] == "unit"] == list(range(1, 201))
    assert len(capsys.readouterr().err.splitlines()) == 200


def test_lengths_of_time_and_rates_are_said_in_the_unit_that_fits() -> None:
    assert [span(each) for each in (5, 119, 125, 7300, 200_000)] == ["5 s", "119 s", "2 min", "2.0 h", "2.3 d"]
    assert rate_words(0, 10, 5.0) == "no rate yet"
    assert rate_words(5, 10, 10.0) == "0.5/s, 10 s left"
    assert rate_words(1, 10, 60.0) == "1/min, 9 min left"
