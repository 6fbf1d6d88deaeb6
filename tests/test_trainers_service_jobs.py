"""Jobs at a fine-tuning service: the service's own package against a loopback server that plays the service."""

from __future__ import annotations

import json
import os
import pty
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.model_files import RESULT_FILE
from repo_agent import main
from tests.fine_tuning_runs import ASKED, CREATE, KEY, PAIR, SAID, SFT_ROW, Runner, set_surroundings, write
from tests.fine_tuning_server import COMPLETE, Fault, FineTuningServer, Stage
from trainers.card import card_paths
from trainers.service_files import Method
from trainers.service_jobs import JOB_FILE, JobDirectory

pytest.importorskip("together", reason="needs the extra 'service'")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Runner]:
    set_surroundings(monkeypatch, tmp_path)
    with FineTuningServer(KEY) as server:
        yield Runner(server, tmp_path)


def test_a_watched_job_ends_with_the_models_name_and_the_eval_line(
    run: Runner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run() == 0
    said = capsys.readouterr().out
    assert "repo-agent eval --llm-provider together --model me/model-mine-ft-1 --suite" in said
    assert "price: about $4.50 for 12,345 tokens" in said
    assert json.loads((tmp_path / "run" / RESULT_FILE).read_text()) == {
        "kind": "sft", "backend": "together", "model": "me/model-mine-ft-1", "base_model": "base/m", "job": "ft-1",
    }  # fmt: skip


def test_each_event_is_printed_and_recorded_once(
    run: Runner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.server.stages = (*COMPLETE[:2], *(Stage("running"),) * 3, *COMPLETE[2:])
    assert run() == 0
    said = capsys.readouterr().out.splitlines()
    messages = ["Fine tune request created", "Training started", "Epoch completed", "Job finished"]
    assert [sum(line.endswith(message) for line in said) for message in messages] == [1] * 4
    assert [event.message for event in run.record.events] == messages
    assert [seen.status for seen in run.record.statuses] == ["pending", "running", "completed"]


def test_the_request_masks_inputs_and_carries_the_settings(run: Runner) -> None:
    assert run(batch_size=8, lora_r=8, lora_alpha=16.0) == 0
    asked = run.server.jobs[0].request
    assert asked["training_method"] == {"method": "sft", "train_on_inputs": False}
    names = ("training_file", "model", "n_epochs", "batch_size", "learning_rate", "suffix", "random_seed")
    assert [asked[name] for name in names] == ["file-1", "base/m", 2, 8, 1e-5, "mine", 3]
    assert (asked["training_type"]["lora_r"], asked["training_type"]["lora_alpha"]) == (8, 16)
    assert run.server.uploads["file-1"]["content"] == (json.dumps(SFT_ROW) + "\n").encode()
    assert run.server.uploads["file-1"]["purpose"] == "fine-tune"


def test_without_lora_the_whole_model_is_trained(run: Runner) -> None:
    assert run(lora=False) == 0
    assert run.server.jobs[0].request["training_type"] == {"type": "Full"}


def test_pairs_go_to_dpo_with_beta(run: Runner) -> None:
    assert run("dpo") == 0
    method = run.server.jobs[0].request["training_method"]
    assert (method["method"], method["dpo_beta"]) == ("dpo", 0.2)


def test_dpo_goes_on_from_a_job_with_its_model_and_training_type(run: Runner, tmp_path: Path) -> None:
    assert run("dpo", "--yes --watch --from-job ft-77:3", model=None) == 0
    asked = run.server.jobs[0].request
    assert asked["from_checkpoint"] == "ft-77:3"
    assert not {"model", "training_type"} & set(asked)
    assert set(run.server.limits_asked) == {"ft-77"}
    assert run.record.base_model == "base/of-the-parent"


def test_without_watch_the_job_is_named_and_left(
    run: Runner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(flags="--yes") == 0
    assert run.server.count("GET /v1/fine-tunes/ft-1") == 0
    said = capsys.readouterr().out
    assert "job ft-1 is on its way" in said
    follow = shlex.split(said.splitlines()[-1])
    assert follow[:5] == ["repo-agent", "train", "sft", "--backend", "together"]
    assert follow[-3:] == ["--output-dir", str(tmp_path / "run"), "--resume"]


def test_resume_follows_the_recorded_job_and_makes_none(run: Runner) -> None:
    run(flags="--yes")
    assert run(flags="", resume=True, dataset=Path("gone.jsonl")) == 0
    assert run.server.count(CREATE) == 1
    assert run.server.count("POST /v1/files") == 1


def test_resume_of_a_job_that_has_ended_says_its_end_again(run: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    run()
    before, _ = len(run.server.requests), capsys.readouterr()
    assert run(flags="", resume=True) == 0
    assert capsys.readouterr().out.startswith("model: me/model-mine-ft-1\n")
    assert len(run.server.requests) == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "holds a job: say --resume"),
        ({"resume": True, "model": "other/m"}, "model: base/m there, other/m here"),
        ({"resume": True, "method": "dpo"}, "method: sft there, dpo here"),
        ({"resume": True, "service": "http://127.0.0.1:9/v1"}, "not of http://127.0.0.1:9/v1"),
        ({"resume": True, "output_dir": Path("none")}, "none holds no job"),
        ({"resume": True, "output_dir": None}, "--resume needs --output-dir"),
    ],
)
def test_a_directory_is_for_one_job(run: Runner, changes: dict[str, Any], said: str) -> None:
    run(flags="--yes")
    before, method = len(run.server.requests), changes.pop("method", "sft")
    if "service" in changes:
        changes["service_url"] = changes.pop("service")
    with pytest.raises(UsageError, match=said):
        run(method, "--yes", **changes)
    assert len(run.server.requests) == before
    assert not Path("none").exists()


def test_a_directory_that_another_process_works_on_is_refused(run: Runner, tmp_path: Path) -> None:
    with JobDirectory(tmp_path / "run").claimed(), pytest.raises(UsageError, match="another process works on"):
        run()


def test_a_directory_of_something_else_is_left_alone(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / RESULT_FILE).write_text("{}")
    with pytest.raises(UsageError, match="holds something else than a job"):
        run()
    assert (tmp_path / "run" / RESULT_FILE).read_text() == "{}"


def test_lora_settings_that_the_limits_gave_are_recorded(run: Runner) -> None:
    assert run() == 0
    found = run.record.training_type or {}
    assert (found["lora_r"], found["lora_alpha"]) == (64, 128)
    assert run.server.jobs[0].request["training_type"]["lora_r"] == 64


def test_the_train_command_starts_a_job_and_the_printed_line_follows_it(
    run: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    write(run.directory / "rows.jsonl", SFT_ROW)
    place = ["--service-url", run.server.url, "--output-dir", "out"]
    flags = ["--dataset", "rows.jsonl", "--model", "base/m", "--backend", "together", "--yes", *place]
    assert main(["train", "sft", *flags]) == 0
    follow = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert main([*follow[1:], "--poll-seconds", "0.01"]) == 0
    assert "--model me/model-None-ft-1 --suite" in capsys.readouterr().out
    assert len(run.server.jobs) == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--backend together --max-length 100", "--max-length means nothing to a service"),
        ("--watch", "--watch is for --backend together"),
    ],
)
def test_flags_of_the_other_backend_are_refused(
    run: Runner, capsys: pytest.CaptureFixture[str], flags: str, said: str
) -> None:
    data = write(run.directory / "rows.jsonl", SFT_ROW)
    assert main(["train", "sft", "--dataset", str(data), "--model", "m", *flags.split()]) == 2
    assert said in capsys.readouterr().err


def test_a_damaged_record_is_refused(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / JOB_FILE).write_text('{"half')
    with pytest.raises(UsageError, match=r"job\.json is not a job's record"):
        run()


def test_the_data_card_is_referred_to(run: Runner, tmp_path: Path) -> None:
    data = write(tmp_path / "data.jsonl", SFT_ROW)
    card_paths(data)[0].write_text("{}")
    assert run(dataset=data) == 0
    card = run.record.data.card
    assert card is not None
    assert card.path.endswith("data.card.json")
    assert len(card.sha256) == 64


TRL_STEP = {"prompt": ASKED, "completion": [SAID]}
TRL_PAIR = {"prompt": ASKED, "chosen": [SAID], "rejected": PAIR["non_preferred_output"]}
WRONG_FILES: dict[str, tuple[Method, list[Any], str]] = {
    "TRL rows": ("sft", [TRL_STEP], "run sft-extract with --target together"),
    "TRL trajectories": ("sft", [{"messages": [*ASKED, SAID]}], "run sft-extract with --target together"),
    "TRL pairs": ("dpo", [TRL_PAIR], "run prefs with --target together"),
    "pairs for sft": ("sft", [PAIR], "use `train dpo`"),
    "TRL pairs for sft": ("sft", [TRL_PAIR], "use `train dpo`"),
    "rows for dpo": ("dpo", [SFT_ROW], "use `train sft`"),
    "empty": ("sft", [], "is empty"),
    "faulty": ("sft", [SFT_ROW, {"messages": [{**SAID, "weight": 1}]}], ":2: "),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_file_of_another_kind_is_refused_before_anything_is_sent(run: Runner, tmp_path: Path, name: str) -> None:
    method, rows, said = WRONG_FILES[name]
    with pytest.raises(UsageError, match=said) as caught:
        run(method, dataset=write(tmp_path / "data.jsonl", *rows))
    assert "\n" not in str(caught.value)
    assert not run.server.requests
    assert not (tmp_path / "run").exists()


def test_a_file_of_another_name_or_with_a_byte_order_mark_is_refused(run: Runner, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.jsonl"):
        run(dataset=write(tmp_path / "data.txt", SFT_ROW))
    (tmp_path / "bom.jsonl").write_text("\ufeff" + json.dumps(SFT_ROW) + "\n", encoding="utf-8")
    with pytest.raises(UsageError, match="byte order mark"):
        run(dataset=tmp_path / "bom.jsonl")


@pytest.mark.parametrize(
    ("method", "changes", "said"),
    [
        ("sft", {"suffix": "x" * 41}, "41 characters: the service takes 40"),
        ("sft", {"suffix": "a b"}, "letters, digits"),
        ("sft", {"epochs": 1.5}, "whole number"),
        ("sft", {"learning_rate": 0.0}, "more than 0"),
        ("sft", {"lora_alpha": 0.5}, "whole numbers"),
        ("sft", {"lora": False, "lora_r": 8}, "mean nothing with --no-lora"),
        ("dpo", {"from_job": "ft-1", "model": "", "lora_r": 8}, "leave --lora-r"),
        ("sft", {"model": ""}, "--model is missing"),
        ("sft", {"from_job": "ft-1"}, "is for `train dpo`"),
        ("dpo", {"from_job": "ft-1"}, "leave --model out"),
        ("dpo", {"from_job": "ft 1", "model": ""}, "no id of a job"),
        ("sft", {"service_url": "example.org"}, "must begin with http"),
    ],
)
def test_a_request_that_no_job_can_be_asked_is_one_line(
    run: Runner, method: Method, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        run(method, **changes)
    assert not run.server.requests


@pytest.mark.parametrize(
    ("changes", "limits", "said"),
    [
        ({"batch_size": 4096}, {}, "batch size of 4096"),
        ({"learning_rate": 5.0}, {}, "--learning-rate 5"),
        ({"epochs": 21}, {}, "takes 20 at most"),
        ({}, {"lora_training": None}, "LoRA adapters are not supported"),
        ({"lora": False}, {"full_training": None}, "Full training is not supported"),
    ],
)
def test_a_limit_of_the_model_is_named_before_the_upload(
    run: Runner, changes: dict[str, Any], limits: dict[str, Any], said: str
) -> None:
    run.server.limits |= limits
    with pytest.raises(UsageError, match=said):
        run(**changes)
    assert run.server.count("POST /v1/files") == 0


def test_the_missing_package_is_named_with_its_extra(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "together", None)
    with pytest.raises(UsageError, match=r"\[service\]"):
        run()


@pytest.mark.parametrize(("key", "said"), [("", "set TOGETHER_API_KEY"), ("ä-secret\n-key", "characters that no key")])
def test_without_a_usable_key_nothing_is_sent(
    run: Runner, monkeypatch: pytest.MonkeyPatch, key: str, said: str
) -> None:
    monkeypatch.setenv("TOGETHER_API_KEY", key)
    with pytest.raises(UsageError, match=said) as caught:
        run()
    assert "secret" not in str(caught.value)
    assert not run.server.requests


def test_without_a_terminal_and_yes_nothing_is_sent(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with pytest.raises(UsageError, match="say --yes"):
            run(flags="--watch")
    assert not run.server.requests
    assert not (tmp_path / "run").exists()


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Types on a terminal that is standard input."""
    master, slave = pty.openpty()
    with os.fdopen(slave) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        yield lambda text: (os.write(master, text.encode()), None)[1]
    os.close(master)


@pytest.mark.parametrize("answer", ["y\n", "YES\n"])
def test_a_yes_on_the_terminal_starts_the_job(run: Runner, typed: Callable[[str], None], answer: str) -> None:
    typed(answer)
    assert run(flags="--watch") == 0
    assert run.server.count(CREATE) == 1


@pytest.mark.parametrize("answer", ["n\n", "\n", "\x04"])
def test_anything_else_starts_none_and_the_upload_serves_the_next_try(
    run: Runner,
    typed: Callable[[str], None],
    answer: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed(answer)
    assert run(flags="--watch") == 0
    said = capsys.readouterr().out
    assert said.index("$4.50") < said.index("start it? [y/N]") < said.index("not started; the file stays")
    assert run.server.count(CREATE) == 0
    assert run(flags="--yes", epochs=3) == 0
    assert run.server.count("POST /v1/files") == 1
    assert run.server.jobs[0].request["n_epochs"] == 3


def test_a_file_that_has_changed_is_sent_again(run: Runner, tmp_path: Path) -> None:
    run.server.faults = [Fault(CREATE, 400)]
    with pytest.raises(UsageError, match="scripted"):
        run()
    write(tmp_path / "sft.jsonl", SFT_ROW, SFT_ROW)
    assert run() == 0
    assert run.server.jobs[0].request["training_file"] == "file-2"
