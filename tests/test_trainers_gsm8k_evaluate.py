"""The evaluation of a served model, and the rows of SFT: no model runs here."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import repo_agent
from suites.gsm8k.formats import FORMATS
from tests.chat_server import ChatServer, Reply, Request, completion, error
from tests.gsm8k_world import SMALL, VARIABLES, Pupil, asked, served
from trainers.data_check import check_file
from trainers.gsm8k.evaluate import finished
from trainers.gsm8k.play import Speaker
from trainers.gsm8k.rows import RowsAbout, leaked_words, question_rows, write_rows
from trainers.gsm8k.settings import Gsm8kSettings

SETTINGS = Gsm8kSettings(suite="arith+easy", prep_train_samples=6, train_samples=12, eval_samples=8)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in SMALL.items():
        monkeypatch.setenv(name, value)


@pytest.mark.slow
def test_a_question_that_could_not_be_played_is_missing_until_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trainers.gsm8k.play.ATTEMPTS", 1)
    unlucky, pupil = SETTINGS.eval_questions().questions[3].id, Pupil(one_in=2)

    def down_for_one(request: Request) -> Reply:
        return error(500) if asked(request).id == unlucky else pupil(request)

    with ChatServer(down_for_one) as server:
        argv = served(server, "eval", "--model-path", "m", "--output-dir", str(tmp_path / "e"))
        assert repo_agent.main(argv) == 3
        assert "--resume goes on" in capsys.readouterr().out
        assert not list((tmp_path / "e").rglob("*.csv")) and finished(tmp_path / "e") is None
        server.script = pupil
        assert repo_agent.main([*argv, "--resume"]) == 0
    assert set(pupil.asked.values()) == {1} and len(pupil.asked) == 8
    (path,) = (tmp_path / "e").glob("debug/*.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [each.id for each in SETTINGS.eval_questions().questions]
    figures = finished(tmp_path / "e")
    assert figures and float(figures["accuracy"]) == sum(int(row["correct"]) for row in rows) / 8


@pytest.mark.parametrize(("finish", "warned"), [("length", True), ("stop", False)])
def test_responses_that_the_limit_of_tokens_cut_off_are_told_of(
    finish: str, warned: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ChatServer(lambda request: completion("so far", finish)) as server:
        assert repo_agent.main(served(server, "eval", "--model-path", "m", "--output-dir", str(tmp_path))) == 0
    assert ("WARNING: 8 of 8 responses were cut off by --max-tokens 24" in capsys.readouterr().err) == warned


def test_models_and_formats_have_evaluations_of_their_own_in_one_directory(tmp_path: Path) -> None:
    with ChatServer(Pupil(one_in=1)) as server:
        argv = served(server, "eval", "--output-dir", str(tmp_path))
        for flags in (["--model-path", "a"], ["--model-path", "b"], ["--model-path", "a", "--prompt-format", "r1"]):
            assert repo_agent.main([*argv, *flags]) == 0
    assert len(list(tmp_path.glob("debug/base_*.csv"))) == len(list(tmp_path.glob("traces/base_*"))) == 3
    assert {path.read_text(encoding="utf-8").count("accuracy: 1\n") for path in tmp_path.glob("debug/*.txt")} == {1}


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({"engine": "hf", "device": "cpu", "dtype": "float32"}, ["--device", "--dtype", "--hf-batch-size"]),
        ({"engine": "vllm", "dtype": "float32"}, ["--dtype", "--hf-batch-size", "--fallback"]),
        ({"engine": "vllm", "fallback": False, "device": "cpu"}, []),
        ({"engine": "vllm", "api_base": "http://127.0.0.1:1", "device": "cpu"}, []),
        ({"engine": "openai", "device": "cpu", "dtype": "float32"}, []),
    ],
)
def test_an_engine_is_given_the_settings_that_it_takes(settings: dict[str, object], flags: list[str]) -> None:
    assert Speaker("m", Gsm8kSettings.model_validate(settings), 0.0).local.given == flags


@pytest.mark.parametrize("form", ["solution", "r1"])
def test_rows_of_worked_solutions_are_sound_right_and_exact(form: str, tmp_path: Path) -> None:
    suite = SETTINGS.model_copy(update={"prompt_format": form}).train_questions()
    rows = question_rows(suite)
    path = write_rows(tmp_path, rows, RowsAbout("repo-agent gsm8k sft", {"epochs": 3}))
    report = check_file(path)
    assert report.sound and sum(report.rows.values()) == 12
    for row, question in zip(rows, suite.questions, strict=True):
        said = row["completion"] if form == "r1" else row["completion"][0]["content"]
        read = FORMATS[form].read(said)
        assert read.exact and read.number == question.gold and row["question_id"] == question.id
    assert (tmp_path / "rows.card.md").read_text(encoding="utf-8").startswith("# rows.jsonl\n\n12 rows.")


@pytest.mark.parametrize("form", ["solution", "r1"])
def test_the_check_of_data_finds_test_questions(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = SETTINGS.model_copy(update={"prompt_format": form, "suite": "arith"})
    question = settings.eval_questions().questions[2]
    rows = [*question_rows(settings.train_questions()), *question_rows(settings.eval_questions())[2:3]]
    path = write_rows(tmp_path, rows, RowsAbout("c", {}))
    assert repo_agent.main(["data", "check", str(path), "--against", "arith"]) == 1
    assert f":13: test task {question.id}: text of question" in capsys.readouterr().out
    path = write_rows(tmp_path, rows[:-1], RowsAbout("c", {}))
    assert repo_agent.main(["data", "check", str(path), "--against", "arith"]) == 0


def test_questions_of_the_evaluation_are_found_in_rows() -> None:
    tested = frozenset(each.question for each in SETTINGS.eval_questions().questions)
    clean = question_rows(SETTINGS.train_questions())
    assert leaked_words(clean, tested) == "No row holds one of the 8 questions of the evaluation."
    leaked = question_rows(SETTINGS.model_copy(update={"prompt_format": "r1"}).eval_questions())[:2]
    assert leaked_words([*clean, *leaked], tested).startswith("WARNING: 2 rows hold a question of the evaluation")
