"""`gsm8k compare`: evaluations on disk become tables, tests and a plot."""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.statistics import mcnemar, sign_flip, wilson_interval
from suites.base import load
from suites.gsm8k.environment import PARTS as EVALUATED
from suites.gsm8k.suite import QuestionSuite
from trainers.gsm8k.compare import add_compare_flags, compare, compared
from trainers.gsm8k.compare_report import in_words, markdown
from trainers.gsm8k.compare_runs import read_evaluation, read_points
from trainers.gsm8k.evaluate import csv_text
from trainers.gsm8k.play import Sample

COLUMNS = "id,question,gold,response,answer,reasoning,correct,answered,thinking,exact,stop,completion_tokens".split(",")


def evaluation(
    place: Path, stage: str, size: int, correct: Sequence[object], seed: int = 0, first: int = 0, run: str = "run"
) -> Path:
    """As `gsm8k` writes it: the questions from number `first` on, with whether each answer was right."""
    debug = place / "debug"
    debug.mkdir(parents=True, exist_ok=True)
    file = debug / f"{stage}_{run}.csv"
    with file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        for number, right in enumerate(correct, first):
            parts = [right, 1, int(number % 4 > 0), 1]
            writer.writerow([f"q/{number}", f"How many,\n{number}?", number, "so…", number, "so", *parts, "final", 20])
    lines = {"stage": stage, "run_id": run, "seed": seed, "train_samples": size, "samples": len(correct)}
    text_of = "".join(f"{name}: {value}\n" for name, value in lines.items())
    file.with_name(f"{stage}_{run}_metrics.txt").write_text(text_of, encoding="utf-8")
    return file


def answers(count: int, share: float, seed: int = 0) -> list[int]:
    """As a model of some ability gives them: what a weaker one gets right, a stronger one does too, mostly."""
    difficulty, own = random.Random(0), random.Random(f"{seed} {share}")
    return [int(difficulty.random() < share if own.random() < 0.8 else own.random() < share) for _ in range(count)]


def sweep(root: Path, count: int = 160, seed: int = 0) -> Path:
    evaluation(root / "base", "base", 0, answers(count, 0.2, seed), seed)
    evaluation(root / "prep_sft", "prep_sft", 128, answers(count, 0.4, seed), seed)
    for size, gain in ((256, 0.0), (512, 0.1), (1024, 0.2)):
        evaluation(root / str(size) / "full_sft", "full_sft", size, answers(count, 0.45 + gain, seed), seed)
        evaluation(root / str(size) / "grpo", "grpo", size, answers(count, 0.5 + 2 * gain, seed), seed)
        evaluation(root / str(size) / "traces_sft", "traces_sft", size, answers(count, 0.45 + 1.3 * gain, seed), seed)
    return root


def run(root: Path) -> str:
    said: list[str] = []
    assert compare(argparse.Namespace(root=root), said.append) == 0
    return "\n".join(said)


def test_a_sweep_becomes_words_tables_and_a_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'train'")
    said = run(sweep(tmp_path))
    assert re.search(r"^GRPO +1024 +1 +\d+\.\d \(", said, re.MULTILINE)
    assert "GRPO on 1024 samples is more often right than SFT on 1024 samples" in said
    text = (tmp_path / "compare.md").read_text(encoding="utf-8")
    assert "| GRPO | 1024 | 1 |" in text
    assert text.count("significant |") == 3 * 3 + 9 + 1
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    svg = (tmp_path / "compare.svg").read_text(encoding="utf-8")
    for name in ("SFT from traces", "GRPO", "base model", "prep SFT (128 samples)", "1,024", "training samples"):
        assert f">{name}<" in svg


def test_the_same_evaluations_give_the_same_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'train'")
    root, names = sweep(tmp_path), ("md", "json", "png", "svg")
    run(root)
    before = [(root / f"compare.{name}").read_bytes() for name in names]
    run(root)
    assert [(root / f"compare.{name}").read_bytes() for name in names] == before


def test_figures_are_those_of_the_questions(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'train'")
    evaluation(tmp_path / "prep_sft", "prep_sft", 8, [1, 0, 0, 0, 1, 0, 0, 0])
    evaluation(tmp_path / "16" / "full_sft", "full_sft", 16, [0, 1, 1, 1, 1, 1, 1, 1])
    run(tmp_path)
    found = json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))
    prep, trained = found["points"]
    assert (prep["accuracy"]["value"], trained["accuracy"]["value"]) == (0.25, 0.875)
    assert (trained["accuracy"]["low"], trained["accuracy"]["high"]) == wilson_interval(0.875, 8)
    assert (trained["thinking"]["value"], trained["answered"]["value"]) == (0.75, 1.0)
    (only,) = found["comparisons"]
    assert (only["difference"], only["p"], only["p_adjusted"]) == (0.625, mcnemar(1, 6), mcnemar(1, 6))
    assert (only["better"], only["worse"], only["significant"]) == (6, 1, False)


def test_every_p_value_is_corrected_for_all_comparisons(tmp_path: Path) -> None:
    found = compared(read_points(sweep(tmp_path)))
    count = len(found.comparisons)
    assert count == 3 * 3 + 9 + 1
    least = min(found.comparisons, key=lambda each: each.p)
    assert least.adjusted == min(1.0, count * least.p)
    assert all(each.adjusted >= each.p for each in found.comparisons)


def test_runs_with_other_seeds_are_one_point_and_tested_by_question(tmp_path: Path) -> None:
    for seed in range(3):
        evaluation(tmp_path / f"{seed}" / "prep_sft", "prep_sft", 8, [seed == 0, 0, 0, 0, 1, 0, 0, 0], seed)
        evaluation(tmp_path / f"{seed}" / "grpo", "grpo", 16, [1, 1, seed > 0, 1, 1, 1, 1, 0], seed)
    for file in tmp_path.rglob("*.csv"):
        file.write_text(file.read_text().replace("True", "1").replace("False", "0"))
    found = compared(read_points(tmp_path))
    assert [row.accuracy_of_runs for row in found.rows] == [(0.25, 0.125, 0.125), (0.75, 0.875, 0.875)]
    (only,) = found.comparisons
    assert only.p == sign_flip([2 / 3, 1, 2 / 3, 1, 0, 1, 1, 0])
    assert only.test == "sign flips"
    assert "3 (25.0, 12.5, 12.5)" in markdown(found)


def test_of_other_questions_the_common_ones_are_compared_and_that_is_said(tmp_path: Path) -> None:
    evaluation(tmp_path / "prep_sft", "prep_sft", 8, [1] * 10)
    evaluation(tmp_path / "16" / "grpo", "grpo", 16, [0] * 10, first=6)
    found = compared(read_points(tmp_path))
    assert found.questions == 4
    assert "only the 4 of 16 that all have" in "\n".join(in_words(found))


def test_evaluations_without_a_common_question_are_refused(tmp_path: Path) -> None:
    evaluation(tmp_path / "prep_sft", "prep_sft", 8, [1] * 5)
    evaluation(tmp_path / "16" / "grpo", "grpo", 16, [0] * 5, first=5)
    with pytest.raises(UsageError, match="no question that all evaluations have: prep SFT 5, GRPO on 16 samples 5"):
        compared(read_points(tmp_path))


def test_unscored_answers_are_left_out_not_counted_as_wrong(tmp_path: Path) -> None:
    evaluation(tmp_path / "prep_sft", "prep_sft", 8, [1, "", 1, 1])
    found = compared(read_points(tmp_path))
    assert (found.questions, found.rows[0].rates["correct"].value) == (3, 1.0)
    assert "1 answers are unscored" in "\n".join(found.notes)


def test_evaluations_that_were_asked_otherwise_are_named(tmp_path: Path) -> None:
    for stage, temperature in (("prep_sft", "0"), ("grpo", "0.8")):
        file = evaluation(tmp_path / stage, stage, 8, [1, 0])
        with file.with_name(f"{stage}_run_metrics.txt").open("a") as metrics:
            metrics.write(f"suite: arith:test\ntemperature: {temperature}\n")
    notes = "\n".join(compared(read_points(tmp_path)).notes)
    assert "not asked alike, temperature: prep SFT 0; GRPO on 8 samples 0.8." in notes
    assert "suite" not in notes


def test_runs_of_one_stage_are_told_apart_by_their_directories(tmp_path: Path) -> None:
    evaluation(tmp_path / "64" / "r1_correct", "r1_sft", 40, [1, 0])
    evaluation(tmp_path / "64" / "r1_all", "r1_sft", 64, [1, 0])
    evaluation(tmp_path / "mine", "r1_sft", 64, [1, 0])
    names = [point.title for point in read_points(tmp_path)]
    assert names == [
        "SFT on r1 traces (mine) on 64 samples",
        "SFT on r1 traces (r1_all) on 64 samples",
        "SFT on r1 traces (r1_correct) on 40 samples",
    ]


def test_filtered_and_unfiltered_rounds_of_expert_iteration_are_compared(tmp_path: Path) -> None:
    for chosen, size in (("correct", 40), ("all", 64)):
        for number in (1, 2):
            evaluation(tmp_path / "exit" / chosen / f"round_{number}", "exit", size + number, [1, 0, number - 1])
    pairs = {(each.first.variant, each.second.variant) for each in compared(read_points(tmp_path)).comparisons}
    assert pairs == {("all/round_1", "correct/round_1"), ("all/round_2", "correct/round_2")}


def test_filtered_and_unfiltered_rounds_are_told_apart_in_any_directory(tmp_path: Path) -> None:
    for chosen in ("correct", "all"):
        evaluation(tmp_path / chosen / "round_1", "exit", 64, [1, 0])
        evaluation(tmp_path / "more" / chosen / "round_1", "exit", 64, [1, 0], seed=1)
    (comparison,) = compared(read_points(tmp_path)).comparisons
    assert (comparison.first.variant, comparison.second.variant) == ("all/round_1", "correct/round_1")
    assert len(comparison.first.runs) == 2


def test_equal_answers_are_called_that_not_given_an_interval_of_no_width(tmp_path: Path) -> None:
    for stage in ("prep_sft", "grpo"):
        evaluation(tmp_path / stage, stage, 8, [1, 0, 0])
    words = "\n".join(in_words(compared(read_points(tmp_path))))
    assert "GRPO on 8 samples against prep SFT: no question was answered better or worse" in words


def test_one_run_alone_is_no_comparison(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'train'")
    evaluation(tmp_path, "base", 0, [1, 0])
    assert "There is nothing to compare: base model stands alone." in run(tmp_path)


def spoilt(root: Path, what: str) -> Path:
    file = evaluation(root / "grpo", "grpo", 16, [1, 0, 1])
    metrics = file.with_name("grpo_run_metrics.txt")
    text = file.read_text(encoding="utf-8")
    match what:
        case "no metrics":
            metrics.unlink()
        case "no budget":
            metrics.write_text("stage: grpo\nrun_id: run\nseed: 0\n")
        case "odd budget":
            metrics.write_text("stage: grpo\nrun_id: run\nseed: 0\ntrain_samples: many\n")
        case "odd value":
            file.write_text(text.replace(",1,1,0,1,final", ",2,1,0,1,final"), encoding="utf-8")
        case "twice":
            file.write_text(text.replace("q/2", "q/1"), encoding="utf-8")
        case "no column":
            file.write_text(text.replace("thinking", "thought"), encoding="utf-8")
        case "no text":
            file.write_bytes(b"id,question\xff\n")
        case "no rows":
            file.write_text(text.splitlines()[0] + "\n", encoding="utf-8")
        case "other question":
            other = evaluation(root / "prep_sft", "prep_sft", 8, [1, 0, 1])
            other.write_text(text.replace("How many", "How much"), encoding="utf-8")
        case "same place":
            evaluation(root / "16" / "grpo", "grpo", 16, [1, 0, 1])
        case "two preps":
            evaluation(root / "a", "prep_sft", 8, [1, 0, 1])
            evaluation(root / "b", "prep_sft", 9, [1, 0, 1])
        case "nothing":
            file.unlink()
    return root


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nothing", "no evaluation there"),
        ("no metrics", "grpo_run_metrics.txt cannot be read: that evaluation has not ended"),
        ("no budget", "no line for train_samples"),
        ("odd budget", "train_samples is 'many'"),
        ("odd value", "grpo_run.csv:3: correct is '2'"),
        ("twice", "'q/1' is there twice"),
        ("no column", "no column thinking"),
        ("no text", "cannot be read as CSV"),
        ("no rows", "no scored question"),
        ("other question", "differ in what question 'q/0' is"),
        ("same place", "seed 0, twice"),
        ("two preps", "several budgets \\(8, 9\\)"),
    ],
)
def test_what_is_no_evaluation_is_refused_by_name(tmp_path: Path, what: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_points(spoilt(tmp_path, what))


def test_the_root_is_the_only_flag() -> None:
    parser = argparse.ArgumentParser()
    add_compare_flags(parser)
    assert vars(parser.parse_args(["here"])) == {"root": Path("here")}


def test_a_model_of_which_no_budget_is_known_is_a_level_not_a_point(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra 'train'")
    evaluation(tmp_path / "mine", "mine", 0, [1, 0, 1, 1])
    evaluation(tmp_path / "16" / "grpo", "grpo", 16, [1, 0, 0, 0])
    assert "mine against GRPO" not in run(tmp_path)
    assert ">mine<" in (tmp_path / "compare.svg").read_text(encoding="utf-8")


def test_the_table_of_an_evaluation_is_read_back_whatever_a_model_wrote(tmp_path: Path) -> None:
    suite = load("arith:test")
    assert isinstance(suite, QuestionSuite)
    texts = ["a\rb", 'a "b",\n\r\nc', "\x00\u2028\x85", "", "é" * 200_000]
    few = QuestionSuite("arith:test", suite.questions[: len(texts)], suite.form)
    samples = [
        Sample(question.id, 0, text, dict.fromkeys(EVALUATED, 1.0), "stop", 3)
        for question, text in zip(few.questions, texts, strict=True)
    ]
    file = evaluation(tmp_path, "grpo", 16, [1])
    file.write_bytes(csv_text(few, samples).encode())
    read = read_evaluation(file)
    assert [(name, answer.asked) for name, answer in read.answers.items()] == [
        (each.id, (each.question, each.gold)) for each in few.questions
    ]
