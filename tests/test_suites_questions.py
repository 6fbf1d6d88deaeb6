"""The question suites: arith as it is generated, GSM8K from a mirror and from the hub, their names and their parts."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.records import TestPolicy
from repo_agent import main
from sandboxes.base import SandboxBackend
from sandboxes.no_sandbox import NoSandbox
from suites.arith import ONE_STEP, SIZES, TWO_STEPS, Problem, Template, arith_questions
from suites.base import SUITES, SuiteFile, load, load_recorded, write_suite_file
from suites.gsm8k.environment import QuestionEnvironment
from suites.gsm8k.loading import load_questions
from suites.gsm8k.suite import SPLITS, Question, Split

MIRROR = Path(os.environ.get("REPO_AGENT_MIRROR", ""))
NO_SANDBOX: SandboxBackend = NoSandbox()
FULL_NAMES = ["arith:train", "arith:test", "arith:train+easy", "arith:test+easy"]

ANSWERS: dict[str, Callable[..., int]] = {
    "gain": lambda has, gets: has + gets,
    "loss": lambda has, gives: has - gives,
    "together": lambda one, other: one + other,
    "difference": lambda one, other: one - other,
    "boxes": lambda boxes, each: boxes * each,
    "days": lambda a_day, days: a_day * days,
    "gain_loss": lambda has, gets, loses: has + gets - loses,
    "two_losses": lambda has, gives, loses: has - gives - loses,
    "boxes_and_more": lambda boxes, each, more: boxes * each + more,
    "boxes_less": lambda boxes, each, taken: boxes * each - taken,
    "change": lambda things, price, paid: paid - things * price,
    "times_as_many": lambda has, times: has * (1 + times),
    "more_than": lambda has, more: 2 * has + more,
    "weeks": lambda a_day, days, weeks: a_day * days * weeks,
}
"""What the stories ask, said once more and apart from how their steps are written."""


def asked(question: Question) -> tuple[Template, tuple[int, ...]]:
    """The template and the numbers of a question, read off its text."""
    for template in ONE_STEP + TWO_STEPS:
        pattern = re.escape(template.story)
        for name in ("who", "other", "thing"):
            pattern = pattern.replace(re.escape(f"{{{name}}}"), r"\w+")
        for letter in "abc":
            pattern = pattern.replace(re.escape(f"{{{letter}}}"), f"(?P<{letter}>\\d+)", 1)
        if found := re.fullmatch(pattern, question.question):
            return template, tuple(map(int, found.groupdict().values()))
    raise AssertionError(question.question)


@pytest.mark.parametrize("name", FULL_NAMES)
def test_every_answer_of_arith_is_what_its_story_asks(name: str) -> None:
    for question in load_questions(name).questions:
        template, numbers = asked(question)
        assert int(question.gold) == ANSWERS[template.name](*numbers) > 0


@pytest.mark.parametrize("name", FULL_NAMES)
def test_every_step_that_arith_shows_is_right(name: str) -> None:
    for question in load_questions(name).questions:
        steps = re.findall(r"(\d+) ([-+*]) (\d+) = <<(\d+)([-+*])(\d+)=(\d+)>>(\d+)", question.answer)
        assert 1 <= len(steps) == question.answer.count("<<") <= 2
        for left, sign, right, *annotated, result in steps:
            assert annotated == [left, sign, right, result]
            assert {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[sign] == int(
                result
            )
        assert steps[-1][-1] == question.gold
        assert "<<" not in question.reasoning and "####" not in question.reasoning


def test_no_arithmetic_of_the_test_part_is_in_a_training_part() -> None:
    parts: dict[Split, set[tuple[str, tuple[int, ...]]]] = {"train": set(), "test": set()}
    for part in SPLITS:
        for question in (*arith_questions(part), *arith_questions(part, easy=True)):
            template, numbers = asked(question)
            parts[part].add((template.name, numbers))
            assert Problem(template, numbers).part == part == question.split
    assert not parts["train"] & parts["test"]


def test_no_question_of_arith_is_there_twice_and_the_sizes_are_those_that_are_stated() -> None:
    for easy in (False, True):
        rows = [*arith_questions("train", easy), *arith_questions("test", easy)]
        assert len({row.question for row in rows}) == len(rows) == SIZES["train"] + SIZES["test"] == 4500
        assert len({row.id for row in rows}) == len(rows)


def test_every_template_is_used_about_as_often_as_the_others() -> None:
    every = Counter(asked(question)[0].name for question in arith_questions("train"))
    assert every.keys() == ANSWERS.keys() and min(every.values()) > 100
    easy = [asked(question) for question in arith_questions("train", easy=True)]
    assert {template.name for template, _ in easy} == {template.name for template in ONE_STEP}
    assert max(number for _, numbers in easy for number in numbers) <= 10


def test_arith_is_the_same_everywhere() -> None:
    assert {name: load(name).version for name in FULL_NAMES} == {
        "arith:train": "41ef78db9c0f",
        "arith:test": "ee8c62d29b7f",
        "arith:train+easy": "53542f325fab",
        "arith:test+easy": "083173f11673",
    }


@pytest.mark.parametrize(
    ("name", "canonical", "count", "form"),
    [
        ("arith", "arith", 4500, "solution"),
        ("arith:test", "arith:test", 500, "solution"),
        ("arith:test+r1", "arith:test+r1", 500, "r1"),
        ("arith+easy:train", "arith:train+easy", 4000, "solution"),
        ("arith+r1:test+easy", "arith:test+easy+r1", 500, "r1"),
    ],
)
def test_the_parts_of_a_name_may_stand_in_any_order(name: str, canonical: str, count: int, form: str) -> None:
    suite = load_questions(name)
    assert (suite.name, len(suite.tasks()), suite.form.name) == (canonical, count, form)
    assert {task.suite for task in suite.tasks()} == {canonical}
    assert load_recorded(suite.name, suite.version).version == suite.version
    assert {task.raw_prompt for task in suite.tasks()} == {suite.form.raw}


@pytest.mark.parametrize("name", ["arith:", "arith:dev", "arith:train:test", "arith+r1+r1", "arith+hard", "gsm8k+easy"])
def test_an_unknown_part_is_refused_in_one_line_that_names_what_there_is(name: str) -> None:
    with pytest.raises(UsageError, match=r"has no part '.*': choose one each of :train, :test"):
        load(name)


def test_a_slice_holds_the_slices_of_smaller_sizes() -> None:
    whole = load_questions("arith:train")
    small, large, rest = whole.slice(0, 64, seed=3), whole.slice(0, 256, seed=3), whole.slice(256, 512, seed=3)
    assert large.questions[:64] == small.questions != whole.questions[:64]
    assert not set(rest.questions) & set(large.questions)
    assert small.questions != whole.slice(0, 64, seed=4).questions
    with pytest.raises(UsageError, match="arith:train has 4000 questions, not 4001"):
        whole.slice(0, 4001, seed=3)


def test_some_questions_in_a_suite_file_are_played_as_questions(tmp_path: Path) -> None:
    whole = load_questions("arith:test+r1")
    ids = tuple(task.id for task in whole.tasks()[3:6])
    content = SuiteFile(name="few", suite=whole.name, version=whole.version_of(ids), tasks=ids)
    write_suite_file(tmp_path / "few.json", content)
    few = load(str(tmp_path / "few.json"))
    assert [task.id for task in few.tasks()] == list(ids)
    environment = few.environment(few.tasks()[0], NO_SANDBOX, TestPolicy.ON_WRITE)
    assert isinstance(environment, QuestionEnvironment)
    assert environment.start()[0].content.endswith("<think>")
    assert few.split_of(few.tasks()[0]) == "test"


def mirror(directory: Path, **parts: str) -> Path:
    folder = directory / "datasets" / "openai" / "gsm8k" / "main"
    folder.mkdir(parents=True)
    for part, text in parts.items():
        (folder / f"{part}.jsonl").write_text(text, encoding="utf-8")
    return directory


ROW = json.dumps({"question": "How much?\u2028Really?", "answer": "It is <<1+1=3>>2.\n#### 2"}, ensure_ascii=False)


def test_gsm8k_comes_from_a_mirror_row_by_row(tmp_path: Path) -> None:
    suite = load_questions("gsm8k", mirror(tmp_path, train=f"{ROW}\n{ROW}\n", test=ROW))
    assert [question.id for question in suite.questions] == ["train-00000", "train-00001", "test-00000"]
    assert (suite.questions[0].gold, suite.questions[0].reasoning) == ("2", "It is 2.")
    assert [suite.split_of(task) for task in suite.tasks()] == ["train", "train", "test"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no datasets/openai/gsm8k/main/test.jsonl"),
        ("{", "has a row that cannot be read"),
        ('{"question": "?"}', "has a row that cannot be read: KeyError"),
        ('{"question": "?", "answer": 2}', "has a row that cannot be read"),
        ('{"question": "?", "answer": "It is 2."}', "test-00000: the answer has no number after ####"),
        ('{"question": "?", "answer": "#### two"}', "test-00000: the answer has no number after ####"),
    ],
)
def test_a_mirror_that_does_not_hold_gsm8k_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)) as refused:
        load("gsm8k:test", mirror(tmp_path, **({"test": text} if text else {})))
    assert "\n" not in str(refused.value)


def test_without_mirror_and_network_one_line_names_the_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    datasets = pytest.importorskip("datasets", reason="needs the extra 'train'")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.delenv("REPO_AGENT_MIRROR", raising=False)
    assert main(["suites", "show", "gsm8k:test"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("repo-agent: error: cannot fetch openai/gsm8k from the hub (") and said.count("\n") == 1
    assert "REPO_AGENT_MIRROR" in said


@pytest.mark.skipif(
    not (MIRROR / "datasets/openai/gsm8k/main/train.jsonl").is_file(), reason="REPO_AGENT_MIRROR has no gsm8k"
)
def test_gsm8k_is_what_was_published() -> None:
    suite = load_questions("gsm8k", MIRROR)
    assert Counter(question.split for question in suite.questions) == {"train": 7473, "test": 1319}
    assert suite.version == "83644dc066d3"
    assert all(question.gold.replace(",", "").lstrip("-").isdigit() for question in suite.questions)


@pytest.mark.parametrize("name", ["gsm8k", "gsm8k+r1", "arith", "arith+easy+r1"])
def test_every_worked_solution_is_right_and_silence_is_wrong(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name.startswith("gsm8k") and not (MIRROR / "datasets/openai/gsm8k").is_dir():
        pytest.skip("REPO_AGENT_MIRROR has no gsm8k")
    assert main(["suites", "validate", name]) == 0
    count = len(load_questions(name, MIRROR).questions)
    assert capsys.readouterr().out == (f"reference: {count} of {count} score 1; do-nothing: 0 of {count} score 1\n")


def test_the_table_of_suites_has_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"gsm8k", "arith"} <= SUITES.keys()
    assert main(["suites", "list"]) == 0
    said = capsys.readouterr().out
    assert "arith:train" in said and "gsm8k:test" in said


def test_show_has_the_prompt_and_a_right_answer(capsys: pytest.CaptureFixture[str]) -> None:
    question = load_questions("arith:test+r1").questions[7]
    assert main(["suites", "show", "arith:test+r1", question.id]) == 0
    said = capsys.readouterr().out
    assert question.question in said and f"<answer>{question.gold}</answer>" in said
    assert main(["suites", "show", "arith:test"]) == 0
    assert "and 400 more; 500 questions" in capsys.readouterr().out


def test_one_part_can_be_split_and_both_together_cannot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["suites", "split", "arith:train+easy", "--test-size", "100", "--out", str(tmp_path)]) == 0
    assert main(["suites", "validate", str(tmp_path / "arith_train_easy_test_suite.json")]) == 0
    assert "reference: 100 of 100 score 1" in capsys.readouterr().out
    assert main(["suites", "split", "arith", "--out", str(tmp_path)]) == 2
    assert "arith is split already: name its part, arith:train or arith:test" in capsys.readouterr().err


def test_a_run_on_a_slice_is_known_again_by_the_name_and_the_version_of_the_whole() -> None:
    whole = load_questions("arith:train")
    part = whole.slice(0, 8, seed=0)
    assert (part.name, part.version) == (whole.name, whole.version)
    assert part.slice(0, 4, seed=0).version == whole.version
    again = load_recorded(part.name, part.version)
    assert {task.id for task in part.tasks()} <= {task.id for task in again.tasks()} and again.version == part.version
