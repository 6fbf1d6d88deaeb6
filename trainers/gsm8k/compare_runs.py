"""The evaluations under a directory as points of a comparison: what was trained, on how much, what it answered.

An evaluation is `debug/[stage]_[run_id].csv`, a row per question, with `[stage]_[run_id]_metrics.txt` beside it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.errors import UsageError

BASE, PREP, EXIT = "base", "prep_sft", "exit"
STAGES = {
    BASE: "base model",
    PREP: "prep SFT",
    "full_sft": "SFT",
    "grpo": "GRPO",
    "traces_sft": "SFT from traces",
    "r1_sft": "SFT on r1 traces",
    EXIT: "expert iteration",
}
"""In words; a stage of another name is called by it."""
PARTS = ("correct", "thinking", "answered")
CONDITIONS = ("suite", "prompt_format", "temperature")
_COLUMNS = {"id", "question", "gold", *PARTS}
_LONGEST = 2**30
"""Characters of a response; what Python's reader takes by itself, a long one exceeds."""
_NAMES = ("stage", "run_id", "seed", "train_samples")


@dataclass(frozen=True)
class Answer:
    """What became of a question; of each of PARTS 0 or 1."""

    asked: tuple[str, str]
    """Question and gold answer."""
    parts: Mapping[str, float]


@dataclass(frozen=True)
class Evaluation:
    """One file of one run."""

    file: Path
    stage: str
    seed: str
    train_samples: int
    answers: Mapping[str, Answer]
    """By question. One that was not scored (the infrastructure failed) is not there."""
    unscored: int
    conditions: Mapping[str, str]
    """How it was asked: those of CONDITIONS that its metrics name."""

    def variant(self, root: Path) -> str:
        """What tells it from other runs of its stage: its path below the directory of its budget, or of its stage."""
        path = self.file.parent.parent.relative_to(root).parts
        known = [place for place, part in enumerate(path, 1) if part.isdecimal() or part == self.stage]
        own = 2 if self.stage == EXIT else 1  # a round has its filter above it
        return "/".join(path[known[-1] :] if known else path[-own:])


@dataclass(frozen=True)
class Point:
    """A way of training at one budget: a run, or several with other seeds."""

    stage: str
    variant: str
    train_samples: int
    runs: tuple[Evaluation, ...]

    @property
    def name(self) -> str:
        words = STAGES.get(self.stage, self.stage)
        return f"{words} ({self.variant})" if self.variant else words

    @property
    def on_a_line(self) -> bool:
        """Over the budget; base and prep stand for themselves, and so does a model of which no budget is known."""
        return self.stage not in (BASE, PREP) and self.train_samples > 0

    @property
    def title(self) -> str:
        return f"{self.name} on {self.train_samples} samples" if self.on_a_line else self.name

    @property
    def round(self) -> str:
        """Of expert iteration."""
        return self.variant.rpartition("/")[2] if self.stage == EXIT else ""

    @cached_property
    def questions(self) -> frozenset[str]:
        return frozenset(question for run in self.runs for question in run.answers)

    def scores(self, part: str, questions: Iterable[str]) -> dict[str, list[float]]:
        """By question, of each run that was asked it."""
        return {
            question: [run.answers[question].parts[part] for run in self.runs if question in run.answers]
            for question in questions
        }


def read_points(root: Path) -> list[Point]:
    """What was evaluated in ROOT/**/debug/, base and prep first.

    Raises:
        UsageError: there is nothing, something cannot be read, or two evaluations claim the same place.
    """
    files = sorted(root.glob("**/debug/*.csv"))
    if not files:
        raise UsageError(f"{root}: no evaluation there (looked for debug/STAGE_RUN.csv in it and under it)")
    found = [read_evaluation(file) for file in files]
    _check_questions(found)
    return _points(root, found)


def read_evaluation(file: Path) -> Evaluation:
    """Raises UsageError, with the place, for what is no evaluation."""
    metrics = _read_metrics(file.with_name(f"{file.stem}_metrics.txt"))
    answers, unscored = _read_answers(file)
    budget = metrics["train_samples"]
    if not budget.isdecimal():
        raise UsageError(f"{file.stem}_metrics.txt in {file.parent}: train_samples is {budget!r}, not a number")
    conditions = {name: metrics[name] for name in CONDITIONS if name in metrics}
    return Evaluation(file, metrics["stage"], metrics["seed"], int(budget), answers, unscored, conditions)


def _read_metrics(file: Path) -> dict[str, str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: that evaluation has not ended, or is none; remove it") from error
    found = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if missing := [name for name in _NAMES if not found.get(name)]:
        raise UsageError(f"{file}: no line for {', '.join(missing)}")
    return found


def _read_answers(file: Path) -> tuple[dict[str, Answer], int]:
    """The scored rows by id, and how many there are without a score."""
    answers: dict[str, Answer] = {}
    unscored = set()
    for number, row in _rows(file):
        if row["id"] in answers or row["id"] in unscored:
            raise UsageError(f"{file}:{number}: {row['id']!r} is there twice")
        if row["correct"] == "":
            unscored.add(row["id"])
            continue
        if wrong := [part for part in PARTS if row[part] not in ("0", "1")]:
            raise UsageError(f"{file}:{number}: {wrong[0]} is {row[wrong[0]]!r}, neither 0 nor 1")
        answers[row["id"]] = Answer((row["question"], row["gold"]), {part: float(row[part]) for part in PARTS})
    if not answers:
        raise UsageError(f"{file}: no scored question in it")
    return answers, len(unscored)


def _rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    """With the number of the line on which each ends."""
    usual = csv.field_size_limit(_LONGEST)
    try:
        with file.open(encoding="utf-8", newline="") as text:
            reader = csv.DictReader(text, restval="")
            if missing := _COLUMNS - set(reader.fieldnames or ()):
                raise UsageError(f"{file}: no column {', '.join(sorted(missing))}")
            return [(reader.line_num, row) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{file} cannot be read as CSV: {error}") from error
    finally:
        csv.field_size_limit(usual)


def _check_questions(evaluations: Sequence[Evaluation]) -> None:
    """One id is one question, everywhere."""
    known: dict[str, tuple[Evaluation, Answer]] = {}
    for evaluation in evaluations:
        for question, answer in evaluation.answers.items():
            first, same = known.setdefault(question, (evaluation, answer))
            if same.asked != answer.asked:
                raise UsageError(f"{first.file} and {evaluation.file} differ in what question {question!r} is")


def _points(root: Path, evaluations: Sequence[Evaluation]) -> list[Point]:
    runs: dict[tuple[str, str, int], list[Evaluation]] = {}
    for each in evaluations:
        variant = "" if each.stage in (BASE, PREP) else each.variant(root)
        runs.setdefault((each.stage, variant, each.train_samples), []).append(each)
    points = [Point(*key, tuple(of)) for key, of in runs.items()]
    _check_places(points)
    return sorted(points, key=lambda point: (_rank(point.stage), point.name, point.train_samples))


def _rank(stage: str) -> int:
    order = list(STAGES)
    return order.index(stage) if stage in order else len(order)


def _check_places(points: Sequence[Point]) -> None:
    for point in points:
        seeds: dict[str, Evaluation] = {}
        for run in point.runs:
            other = seeds.setdefault(run.seed, run)
            if other is not run:
                raise UsageError(f"{point.title}, seed {run.seed}, twice: {other.file} and {run.file}; remove one")
    for stage in (BASE, PREP):
        if len(budgets := {point.train_samples for point in points if point.stage == stage}) > 1:
            raise UsageError(
                f"{STAGES[stage]} with several budgets ({', '.join(map(str, sorted(budgets)))}): choose one"
            )
