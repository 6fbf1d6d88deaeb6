"""Jobs at a fine-tuning service that misbehaves, and runs that are ended in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.errors import InfrastructureError, PolicyRefused, UsageError
from harness.model_files import RESULT_FILE
from harness.versions import versions
from tests.fine_tuning_runs import CREATE, KEY, WATCHED, Runner, arguments, set_surroundings
from tests.fine_tuning_server import COMPLETE, Fault, FineTuningServer, Stage, event
from trainers.service_cli import request_of
from trainers.service_files import checked_file
from trainers.service_jobs import JOB_FILE, JobDirectory, JobRecord, ServiceJob
from trainers.together_service import CallSettings, TogetherService

pytest.importorskip("together", reason="needs the extra 'service'")

LIST = "GET /v1/fine-tunes"
LOOK = "GET /v1/fine-tunes/ft-1"
PASSING: dict[str, dict[str, Any]] = {
    "429": {"status": 429},
    "500": {"status": 500},
    "dropped": {},
    "lost": {"after": True},
    "html": {"status": 502, "body": b"<html>", "headers": {"Content-Type": "text/html"}},
    "html in 200": {"status": 200, "body": b"<html>", "headers": {"Content-Type": "text/html"}, "after": True},
    "half": {"status": 200, "body": b'{"id', "after": True},
    "list": {"status": 200, "body": [1], "after": True},
    "empty": {"status": 200, "body": {}, "after": True},
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Runner]:
    set_surroundings(monkeypatch, tmp_path)
    with FineTuningServer(KEY) as server:
        yield Runner(server, tmp_path)


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        pytest.param(asked, fault, marks=() if asked == CREATE or fault == "500" else pytest.mark.slow)
        for asked in WATCHED
        for fault in PASSING
    ],
)
def test_a_passing_fault_is_gone_through_to_one_job(run: Runner, asked: str, fault: str) -> None:
    run.server.faults = [Fault(asked, **PASSING[fault], times=2)]
    assert run() == 0
    (job,) = run.server.jobs
    assert run.record.model == "me/model-mine-ft-1"
    assert run.server.uploads[job.request["training_file"]]["content"] == (run.directory / "sft.jsonl").read_bytes()


def test_the_service_may_ask_for_a_pause(run: Runner) -> None:
    run.server.faults = [Fault(LOOK, 429, headers={"Retry-After": "0.5"})]
    began = time.monotonic()
    assert run() == 0
    assert time.monotonic() - began >= 0.5


@pytest.mark.parametrize(
    ("asked", "status", "kind", "said"),
    [
        ("GET /v1/fine-tunes/models/limits", 401, PolicyRefused, "check TOGETHER_API_KEY"),
        ("GET /v1/fine-tunes/models/limits", 404, PolicyRefused, "no such model"),
        ("POST /v1/files", 401, PolicyRefused, "check TOGETHER_API_KEY"),
        ("POST /v1/files", 413, UsageError, r"\(413\) scripted"),
        ("PUT /storage/file-1", 403, PolicyRefused, "may not do this"),
        ("POST /v1/fine-tunes/estimate-price", 400, UsageError, r"\(400\) scripted"),
        (CREATE, 402, UsageError, r"\(402\) scripted"),
        (CREATE, 403, PolicyRefused, "may not do this"),
        (LOOK, 404, PolicyRefused, "no such model, file or job"),
    ],
)
def test_a_refusal_is_one_line_and_not_repeated(
    run: Runner, asked: str, status: int, kind: type[UsageError], said: str
) -> None:
    run.server.faults = [Fault(asked, status, times=100)]
    with pytest.raises(UsageError, match=said) as caught:
        run()
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert run.server.count(asked) == 1


def test_a_refused_request_may_be_put_right_in_the_same_directory(run: Runner) -> None:
    run.server.faults = [Fault(CREATE, 422)]
    with pytest.raises(UsageError, match="422"):
        run(suffix="first")
    assert run(suffix="second") == 0
    assert [job.request["suffix"] for job in run.server.jobs] == ["second"]


def test_the_key_is_nowhere_in_what_is_printed_or_recorded(run: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    told = Stage("running", (event(f"with {KEY}"),))
    run.server.stages = (told, told, Stage("error", (event(f"the key {KEY} is bad", "job_error"),)))
    assert run() == 1
    printed = "".join(capsys.readouterr())
    assert KEY not in printed
    assert printed.count("with [redacted]") == 1
    assert KEY not in (run.directory / "run" / JOB_FILE).read_text()


def test_the_key_is_in_no_refusal(run: Runner, capfd: pytest.CaptureFixture[str]) -> None:
    from repo_agent import _run

    run.server.key = "another"
    assert _run(lambda _: run(), []) == 2
    said = capfd.readouterr().err
    assert "invalid key Bearer [redacted]" in said
    assert KEY not in said


@pytest.mark.parametrize("status", ["error", "user_error", "cancelled"])
def test_a_job_that_fails_is_one_line_with_the_services_words(
    run: Runner, capsys: pytest.CaptureFixture[str], status: str
) -> None:
    ends = (event("the data\nis\x1b[31m bad", "job_error"), event("Money back", "refund"))
    run.server.stages = (*COMPLETE[:2], Stage(status, ends))
    assert run() == 1
    assert capsys.readouterr().err == f"repo-agent: error: job ft-1 ended with {status}: the data is [31m bad\n"
    assert run.record.status == status
    assert not (run.directory / "run" / RESULT_FILE).exists()


def test_what_the_service_says_is_printed_without_control_characters(
    run: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = event("a\x1b]0;title\x07\r\nb\u202ec\ud800d", "weird\x1b[2J", created_at=None, level=7)
    run.server.stages = (Stage("new\x1bstatus", (odd,)), *COMPLETE)
    run.server.output_name = "me/mo\x1b[2Jdel; rm -rf ~"
    assert run() == 0
    said = capsys.readouterr().out
    assert all(character.isprintable() or character == "\n" for character in said)
    assert "\na ]0;title b c d\n" in said
    assert "--model 'me/mo [2Jdel; rm -rf ~' --suite" in said
    assert run(flags="", resume=True) == 0


def test_an_id_that_is_none_makes_no_second_job(run: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    run.server.job_id = "ft; rm -rf ~"
    assert run() == 3
    assert len(run.server.jobs) == 1
    assert "rm" not in "".join(capsys.readouterr())


def test_an_older_job_of_the_same_file_and_suffix_is_not_taken_for_ours(run: Runner, tmp_path: Path) -> None:
    run(flags="--yes", output_dir=tmp_path / "older")
    run.server.faults = [Fault(CREATE, after=True)]
    assert run(flags="--yes") == 0
    assert run.record.job == "ft-2"
    assert len(run.server.jobs) == 2


def test_a_job_whose_answer_was_lost_for_good_is_found_on_resume(
    run: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    server = run.server
    server.faults = [Fault(CREATE, after=True), Fault(LIST, 503, times=100, when=lambda: bool(server.jobs))]
    assert run(flags="--yes") == 3
    assert "it is not known whether there is a job, go on with: repo-agent train sft" in capsys.readouterr().err
    server.faults = []
    with pytest.raises(UsageError, match="say --resume"):
        run()
    assert run(flags="--yes", resume=True) == 0
    assert len(server.jobs) == 1
    assert run.record.job == "ft-1"


def test_a_service_that_stays_away_while_watched_ends_the_watching_only(
    run: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    run.server.faults = [Fault(LOOK, 503, times=8)]
    assert run() == 3
    said = capsys.readouterr().err
    assert "failed 8 times, the last: (503) scripted; job ft-1 goes on at the service, follow it with:" in said
    assert run(flags="", resume=True) == 0
    assert len(run.server.jobs) == 1


def test_an_interruption_leaves_the_job_and_says_how_to_go_on(run: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    run.server.stages = (*COMPLETE[:2], Stage("running"), *COMPLETE[2:])
    main = threading.main_thread().ident or 0

    def interrupt(request: str) -> None:
        if request == LOOK and run.server.jobs[0].looks == 2:
            signal.pthread_kill(main, signal.SIGINT)

    run.server.on_request = interrupt
    assert run() == 130
    said = capsys.readouterr().err
    assert "interrupted; job ft-1 goes on at the service, follow it with: repo-agent train sft" in said
    assert run(flags="", resume=True) == 0
    printed = capsys.readouterr().out
    assert printed.count("Fine tune request created") + printed.count("Job finished") == 1
    assert len(run.server.jobs) == 1


def test_a_process_killed_while_its_request_is_under_way_makes_no_second_job(run: Runner) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.fine_tuning_runs import arguments;"
        "from trainers.service_cli import run_service_job;"
        "run_service_job('sft', arguments('sft', sys.argv[1], Path(sys.argv[2]), '--yes'))"
    )
    root = Path(__file__).resolve().parent.parent
    child = subprocess.Popen(
        [sys.executable, "-c", code, run.server.url, str(run.directory)], cwd=root, env={**os.environ}
    )
    run.server.on_request = lambda request: child.kill() if request == CREATE else None
    assert child.wait(60) == -signal.SIGKILL
    assert run.record.job is None
    assert run(flags="--yes", resume=True) == 0
    assert len(run.server.jobs) == 1


def test_a_file_that_is_read_slowly_is_waited_for(run: Runner) -> None:
    run.server.processing_looks = 5
    assert run() == 0
    assert run.server.count("GET /v1/files/file-1") == 5


def test_a_file_that_is_never_read_is_given_up(run: Runner) -> None:
    run.server.processing_looks = 10**9
    args = arguments("sft", run.server.url, run.directory, "")
    data = checked_file(args.dataset, "sft")
    with TogetherService(CallSettings(run.server.url)) as service:
        record = JobRecord(
            service=service.url, request=request_of("sft", args), data=data, created="", versions=versions()
        )
        job = ServiceJob(service, JobDirectory(run.directory), record, print, 0.01)
        with pytest.raises(InfrastructureError, match="has not read file file-1 after 0 s"):
            job.upload(max_wait_s=0.05)


def test_a_balance_that_is_too_small_and_rows_that_are_too_long_are_said(
    run: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    run.server.estimate["allowed_to_proceed"] = False
    run.server.limits["max_seq_length_sft"] = 20
    assert run() == 0
    said = capsys.readouterr().out
    assert "WARNING: the account's balance does not cover it" in said
    assert "WARNING: about 1 rows are longer than the 20 tokens" in said


def test_a_model_without_an_estimate_is_said_to_have_none(run: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    run.server.limits["supports_vision"] = True
    assert run() == 0
    assert "price: the service gives no estimate for this job" in capsys.readouterr().out
    assert run.server.count("POST /v1/fine-tunes/estimate-price") == 0


def test_no_result_is_written_until_the_model_has_a_name(run: Runner) -> None:
    run.server.output_name = ""
    assert run() == 3
    run.server.output_name = "me/late"
    assert run(flags="", resume=True) == 0
    assert json.loads((run.directory / "run" / RESULT_FILE).read_text())["model"] == "me/late"
