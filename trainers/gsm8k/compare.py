"""`repo-agent gsm8k compare ROOT`: what training brought at equal budget, as a table, a plot, and in plain words."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from harness.errors import UsageError
from harness.optional import require_libraries
from harness.statistics import (
    Difference,
    holm,
    mcnemar,
    paired_difference,
    sign_flip,
    task_differences,
    wilson_interval,
)
from trainers.gsm8k.compare_runs import BASE, CONDITIONS, PARTS, PREP, Point, read_points

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Rate:
    """A share of the questions, with Wilson's 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """What a point answered."""

    point: Point
    rates: Mapping[str, Rate]
    """Of each of PARTS. Of several runs: the mean of the questions' means, the questions being the units."""
    accuracy_of_runs: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """Two points on the same questions: the accuracy of the second less that of the first."""

    first: Point
    second: Point
    difference: Difference
    better: int
    """Questions on which the second has the higher score."""
    worse: int
    test: str
    p: float
    adjusted: float = 1.0
    """Of p, after Holm's correction for all comparisons."""

    @property
    def significant(self) -> bool:
        return self.adjusted <= SIGNIFICANT


@dataclass(frozen=True)
class Compared:
    """All that is said of a directory."""

    questions: int
    """Those that every point was asked; all else rests on them."""
    notes: tuple[str, ...]
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...]


def add_compare_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, help="directory of a sweep; every debug/*.csv in and under it is compared")


def compare(args: argparse.Namespace, say: Callable[[str], None] = print) -> int:
    """Write ROOT/compare.md, .json, .png and .svg, and `say` the accuracies and what differs.

    Raises:
        UsageError: there is nothing to compare, or no question that all were asked.
    """
    require_libraries("matplotlib")
    found = compared(read_points(args.root))
    from trainers.gsm8k.compare_plot import write_plot
    from trainers.gsm8k.compare_report import in_words, plain_table, write_report

    write_plot(found, args.root)
    write_report(found, args.root)
    say(f"{plain_table(found)}\n")
    say("\n".join(in_words(found)))
    say(f"\n{args.root / 'compare.md'}, with compare.json, compare.png and compare.svg")
    return 0


def compared(points: Sequence[Point]) -> Compared:
    """The points on the questions that they have in common. Raises UsageError where there are none."""
    questions = sorted(frozenset.intersection(*(point.questions for point in points)))
    if not questions:
        raise UsageError(f"there is no question that all evaluations have: {_questions_of_each(points)}")
    comparisons = [_comparison(first, second, questions) for first, second in _pairs(points)]
    adjusted = holm([each.p for each in comparisons])
    return Compared(
        questions=len(questions),
        notes=tuple(_notes(points, questions)),
        rows=tuple(_row(point, questions) for point in points),
        comparisons=tuple(
            replace(each, adjusted=corrected) for each, corrected in zip(comparisons, adjusted, strict=True)
        ),
    )


def _questions_of_each(points: Iterable[Point]) -> str:
    return ", ".join(f"{point.title} {len(point.questions)}" for point in points)


def _notes(points: Sequence[Point], questions: Sequence[str]) -> Iterator[str]:
    """What limits the comparison."""
    everything = len(frozenset.union(*(point.questions for point in points)))
    if everything > len(questions):
        yield (
            f"The evaluations have other questions: only the {len(questions)} of {everything} that all have are "
            f"compared ({_questions_of_each(points)})."
        )
    for name in CONDITIONS:
        known = {point.title: {run.conditions.get(name, "unknown") for run in point.runs} for point in points}
        if len(set().union(*known.values())) > 1:
            each = "; ".join(f"{title} {', '.join(sorted(values))}" for title, values in known.items())
            yield f"The evaluations were not asked alike, {name}: {each}."
    if unscored := sum(run.unscored for point in points for run in point.runs):
        yield f"{unscored} answers are unscored, for reasons of the infrastructure: those rows are left out."
    if len({len(point.runs) for point in points}) > 1:
        counts = ", ".join(f"{point.title} {len(point.runs)}" for point in points)
        yield f"The points have different numbers of runs: {counts}."
    if all(len(point.runs) == 1 for point in points):
        yield "One run each: the tests speak of these models. Training with another seed gives other ones."
    else:
        yield "The tests' units are questions. How far runs with other seeds lie apart is in the table."


def _pairs(points: Sequence[Point]) -> Iterator[tuple[Point, Point]]:
    """Which points are compared: trained ones that are alike, each with where it began, and that with the base."""
    known = {point.stage: point for point in points if point.stage in (BASE, PREP)}
    trained = [point for point in points if point.stage not in known]
    yield from sorted(
        (pair for pair in combinations(trained, 2) if _alike(*pair)), key=lambda pair: pair[0].train_samples
    )
    if begin := known.get(PREP, known.get(BASE)):
        yield from ((begin, point) for point in trained)
    if len(known) == 2:
        yield known[BASE], known[PREP]


def _alike(first: Point, second: Point) -> bool:
    """Of equal budget; or of one round of expert iteration, whose filter decides how much is trained on."""
    return first.train_samples == second.train_samples or bool(first.round and first.round == second.round)


def _comparison(first: Point, second: Point, questions: Sequence[str]) -> Comparison:
    """McNemar's exact test where each side has one answer a question; else means of questions, signs flipped."""
    differences = task_differences(first.scores("correct", questions), second.scores("correct", questions))
    better, worse = sum(each > 0 for each in differences), sum(each < 0 for each in differences)
    single = len(first.runs) == len(second.runs) == 1
    return Comparison(
        first,
        second,
        paired_difference(differences),
        better,
        worse,
        "McNemar, exact" if single else "sign flips",
        mcnemar(worse, better) if single else sign_flip(differences),
    )


def _row(point: Point, questions: Sequence[str]) -> Row:
    rates = {part: _rate(point.scores(part, questions).values()) for part in PARTS}
    runs = tuple(_run_accuracy(point, place, questions) for place in range(len(point.runs)))
    return Row(point, rates, runs)


def _rate(scores: Iterable[Sequence[float]]) -> Rate:
    means = [sum(each) / len(each) for each in scores]
    value = sum(means) / len(means)
    return Rate(value, *wilson_interval(value, len(means)))


def _run_accuracy(point: Point, place: int, questions: Sequence[str]) -> float:
    """Of one of the runs, on those of the questions that it was asked."""
    asked = [answer for name in questions if (answer := point.runs[place].answers.get(name))]
    return sum(answer.parts["correct"] for answer in asked) / len(asked) if asked else 0.0
