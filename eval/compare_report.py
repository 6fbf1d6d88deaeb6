"""A comparison as tables: for the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eval.compare_records import ArmResult, Compared, Comparison, Flip, MetricDifference, SolvedDifference
from eval.compare_words import listed, p_words

ABOUT_METRICS = "The other metrics: means over tasks; p by sign flips, corrected by Holm's method for all of them."
METRIC_HEADS = ("metric", "{first}", "{second}", "difference (95% interval)", "p", "corrected")


def print_compared(found: Compared, console: Console) -> None:
    """The arms, then each comparison: its verdict first."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    for line in found.warnings:
        say(f"WARNING: {line}")
    console.print(_table(title_of(found), _arm_heads(found), map(_arm_cells, _padded(found))))
    for line in [*left_out_lines(found), *found.notes]:
        say(line)
    for comparison in found.comparisons:
        say(f"\n{comparison.second} against {comparison.first}")
        say(f"  {comparison.verdict}")
        for line in solved_lines(comparison.solved):
            say(f"  {line}")
        console.print(_table("", _metric_heads(comparison), map(_metric_cells, comparison.metrics)))
    if found.comparisons:
        say(ABOUT_METRICS)


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    made = Table(title=Text(title) if title else None, title_justify="left", box=SIMPLE, pad_edge=False, padding=0)
    for place, head in enumerate(heads):
        made.add_column(Text(head), justify="right" if place else "left")
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def markdown(found: Compared) -> str:
    parts = [f"# {title_of(found)}", *(f"**Warning**: {line}." for line in found.warnings)]
    parts.append(_markdown_table(_arm_heads(found), map(_arm_cells, _padded(found))))
    if lines := [*left_out_lines(found), *found.notes]:
        parts.append("\n".join(f"- {line}" for line in lines))
    for comparison in found.comparisons:
        parts += [f"## {comparison.second} against {comparison.first}", f"**{comparison.verdict}**"]
        parts += ["\n".join(f"- {line}" for line in solved_lines(comparison.solved))] if comparison.solved else []
        parts.append(_markdown_table(_metric_heads(comparison), map(_metric_cells, comparison.metrics)))
    parts += [ABOUT_METRICS] if found.comparisons else []
    return "\n\n".join(parts) + "\n"


def _markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in lines)


def title_of(found: Compared) -> str:
    count = len(found.tasks)
    all_have = " that all arms have" if len(found.arms) > 1 else ""
    return f"{found.suite}, {count} task{'s' * (count != 1)}{all_have}"


def left_out_lines(found: Compared) -> Iterator[str]:
    """The tasks that are not compared, by reason."""
    reasons: dict[str, list[str]] = {}
    for task, why in found.left_out.items():
        reasons.setdefault(why, []).append(task)
    for why, tasks in reasons.items():
        yield f"{len(tasks)} task{'s' * (len(tasks) != 1)} left out, {why}: {listed(tasks)}"


def solved_lines(solved: SolvedDifference | None) -> Iterator[str]:
    """The figures behind the verdict."""
    if solved is None:
        return
    interval = ""
    if solved.interval:
        low, high = solved.interval
        interval = f" (95% interval {_points(low)} to {_points(high)})"
    yield f"solved: {_points(solved.difference)} points{interval}; {solved.test}, {p_words(solved.p)}"
    names = ("gained", "lost") if solved.single else ("better", "worse")
    for name, flips in zip(names, (solved.gained, solved.lost), strict=True):
        if flips:
            yield f"{name}: {listed(_flip(flip, solved.single) for flip in flips)}"


def _flip(flip: Flip, single: bool) -> str:
    return flip.task if single else f"{flip.task} ({flip.first:.2g} to {flip.second:.2g})"


def _points(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def _padded(found: Compared) -> Iterator[tuple[ArmResult, list[str]]]:
    """Each arm with the columns of pass@k that some have."""
    return ((arm, _ks(found)) for arm in found.arms)


def _ks(found: Compared) -> list[str]:
    return sorted({k for arm in found.arms for k in arm.pass_at_k}, key=int)


def _arm_heads(found: Compared) -> list[str]:
    return ["arm", "solved", "rate (95% interval)", *(f"pass@{k}" for k in _ks(found)), "rollouts", "seeds"]


def _arm_cells(padded: tuple[ArmResult, list[str]]) -> list[str]:
    arm, ks = padded
    solved, rate = "not tested", "-"
    if arm.solved is not None and arm.rate is not None and arm.interval is not None:
        low, high = arm.interval
        solved, rate = f"{arm.solved} of {arm.rollouts}", f"{arm.rate:.3f} ({low:.2f} to {high:.2f})"
    estimates = [f"{arm.pass_at_k[k]:.3f}" if k in arm.pass_at_k else "-" for k in ks]
    return [arm.name, solved, rate, *estimates, str(arm.rollouts), ", ".join(map(str, arm.seeds))]


def _metric_heads(comparison: Comparison) -> list[str]:
    return [head.format(first=comparison.first, second=comparison.second) for head in METRIC_HEADS]


def _metric_cells(metric: MetricDifference) -> list[str]:
    interval = ""
    if metric.interval:
        low, high = (_number(each, "+") for each in metric.interval)
        interval = f" ({low} to {high})"
    p_values = [p_words(value).removeprefix("p ").removeprefix("= ") for value in (metric.p, metric.adjusted)]
    sides = [_number(metric.first), _number(metric.second)]
    return [metric.name, *sides, _number(metric.difference, "+") + interval, *p_values]


def _number(value: float, sign: str = "") -> str:
    """With three digits that say something, and no exponent."""
    if not value:
        return "0"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 4
    text = f"{value:{sign},.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
