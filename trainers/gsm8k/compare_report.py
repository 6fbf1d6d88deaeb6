"""The words and tables of a comparison: compare.md and compare.json."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from trainers.card import atomic_file
from trainers.gsm8k.compare import SIGNIFICANT, Compared, Comparison, Rate, Row
from trainers.gsm8k.compare_runs import PARTS

COMPARISON_HEADS = ("first", "second", "difference", "better", "worse", "test", "p", "corrected", "")
ABOUT_COMPARISONS = (
    "Accuracy of the second less that of the first, in points, on the same {questions} questions, with a bootstrapped "
    "95% interval (too narrow where hardly any differ), and on how many of them the second did better and worse. "
    "Significant: p, corrected by Holm's method, is at most {most}."
)
HEADS = {"correct": "accuracy", "thinking": "thinking", "answered": "answered"}
EVALUATION_HEADS = ("", "samples", "runs", *HEADS.values())


def write_report(found: Compared, root: Path) -> None:
    """Both files of `root`."""
    with atomic_file(root / "compare.json") as file:
        file.write((json.dumps(as_data(found), indent=1) + "\n").encode())
    with atomic_file(root / "compare.md") as file:
        file.write(markdown(found).encode())


def in_words(found: Compared) -> Iterator[str]:
    """What differs and what does not, as lines of a list, with what limits it."""
    differ = [each for each in found.comparisons if each.significant]
    rest = [each for each in found.comparisons if not each.significant]
    count = len(found.comparisons)
    if not count:
        yield f"There is nothing to compare: {found.rows[0].point.title} stands alone."
    corrected = f", after correction for {count} comparisons" if count > 1 else ""
    if differ:
        yield f"On the {found.questions} questions these differences are significant{corrected}:"
    yield from (f"- {_finding(each)}" for each in differ)
    if rest:
        yield "These are not significant, which means that the questions cannot tell, not that there is no difference:"
    yield from (f"- {each.second.title} against {each.first.title}: {_figures(each)}" for each in rest)
    yield from found.notes


def _finding(each: Comparison) -> str:
    relation = "more" if each.difference.mean > 0 else "less"
    return f"{each.second.title} is {relation} often right than {each.first.title}: {_figures(each)}"


def _figures(each: Comparison) -> str:
    found = each.difference
    if not each.better + each.worse:
        return "no question was answered better or worse"
    interval = f"95% interval {_signed(found.low)} to {_signed(found.high)}"
    return f"{_signed(found.mean)} points ({interval}; p {_p(each.adjusted)})"


def _signed(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.3f}"


def markdown(found: Compared) -> str:
    """compare.md."""
    said = list(in_words(found))
    notes = said[len(said) - len(found.notes) :]
    parts = [
        "# Training compared",
        "![accuracy over training samples](compare.svg)",
        *_lists(said[: len(said) - len(notes)]),
        *notes,
        "## Evaluations",
        "Shares in percent, with Wilson's 95% interval. Of several runs: their mean, and the accuracy of each.",
        _table(EVALUATION_HEADS, map(_cells, found.rows)),
        "## Comparisons",
        ABOUT_COMPARISONS.format(questions=found.questions, most=SIGNIFICANT),
        _table(COMPARISON_HEADS, map(_comparison, found.comparisons)),
    ]
    return "\n\n".join(parts) + "\n"


def _lists(lines: Sequence[str]) -> Iterator[str]:
    """Paragraphs, and lists as one paragraph each."""
    items: list[str] = []
    for line in lines:
        if line.startswith("- "):
            items.append(line)
            continue
        if items:
            yield "\n".join(items)
        items = []
        yield line
    if items:
        yield "\n".join(items)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def plain_table(found: Compared) -> str:
    """The evaluations in columns, for a terminal."""
    rows = [list(EVALUATION_HEADS), *map(_cells, found.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _cells(row: Row) -> list[str]:
    runs = ", ".join(f"{100 * each:.1f}" for each in row.accuracy_of_runs)
    count = str(len(row.accuracy_of_runs)) + (f" ({runs})" if len(row.accuracy_of_runs) > 1 else "")
    return [row.point.name, str(row.point.train_samples), count, *(_rate(row.rates[part]) for part in HEADS)]


def _rate(rate: Rate) -> str:
    return f"{100 * rate.value:.1f} ({100 * rate.low:.1f} to {100 * rate.high:.1f})"


def _comparison(each: Comparison) -> list[str]:
    found = each.difference
    interval = f"{_signed(found.mean)} ({_signed(found.low)} to {_signed(found.high)})"
    verdict = "significant" if each.significant else "not significant"
    p_values = [_p(value).removeprefix("= ") for value in (each.p, each.adjusted)]
    questions = [str(each.better), str(each.worse)]
    return [each.first.title, each.second.title, interval, *questions, each.test, *p_values, verdict]


def as_data(found: Compared) -> dict[str, Any]:
    """compare.json: shares from 0 to 1."""
    return {
        "questions": found.questions,
        "notes": list(found.notes),
        "points": [_point_data(row) for row in found.rows],
        "comparisons": [_comparison_data(each) for each in found.comparisons],
    }


def _point_data(row: Row) -> dict[str, Any]:
    point = row.point
    rates = {HEADS[part]: row.rates[part] for part in PARTS}
    return {
        "name": point.name,
        "stage": point.stage,
        "train_samples": point.train_samples,
        "seeds": [run.seed for run in point.runs],
        **{name: {"value": rate.value, "low": rate.low, "high": rate.high} for name, rate in rates.items()},
        "accuracy_of_runs": list(row.accuracy_of_runs),
    }


def _comparison_data(each: Comparison) -> dict[str, Any]:
    return {
        "first": each.first.title,
        "second": each.second.title,
        "difference": each.difference.mean,
        "low": each.difference.low,
        "high": each.difference.high,
        "better": each.better,
        "worse": each.worse,
        "test": each.test,
        "p": each.p,
        "p_adjusted": each.adjusted,
        "significant": each.significant,
    }
