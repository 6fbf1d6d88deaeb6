"""A comparison in plain words: the verdict, what makes it unfair, and what was left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from eval.compare_records import SolvedDifference
from eval.compare_runs import Arm, PlayedRun
from harness.statistics import ALPHA

NOT_TESTED = "not tested: which of them solves more cannot be said"

_Value = Callable[[PlayedRun], object]


def _flag(name: str) -> _Value:
    """What a run was told; unknown for one of an earlier version."""
    return lambda run: run.origin.flags.get(name) or "none" if run.origin else None


UNFAIR: Mapping[str, _Value] = {
    "version of the suite": lambda run: run.config.suite_version[:12],
    "--test-policy": lambda run: run.config.test_policy,
    "--max-iters": lambda run: run.config.max_iters,
    "--stop-on-loop": lambda run: "on" if run.config.stop_on_loop else "off",
    "--temperature": lambda run: run.config.temperature,
    "--max-tokens": lambda run: run.config.max_tokens,
    "--tool-protocol": lambda run: run.config.tool_protocol,
    "--max-cost": _flag("max_cost"),
    "--max-total-tokens": _flag("max_total_tokens"),
    "prompts": lambda run: run.origin.prompts_sha256[:12] if run.origin else None,
    "oracle": lambda run: "knows the answers" if run.config.oracle else "no",
}
"""What gives one side an advantage that is not its own; None where it is not known."""
OTHER: Mapping[str, _Value] = {
    "--sandbox": lambda run: run.config.sandbox,
    "--isolation": lambda run: run.config.isolation,
    "image": lambda run: run.image.removeprefix("sha256:")[:12] or None,
    "commit": lambda run: (
        run.versions.get("commit", "")[:12] + "+" * run.versions.get("commit", "").endswith("+") or None
    ),
    "engine": lambda run: run.versions.get("engine") or None,
    "--rollouts": lambda run: run.config.rollouts,
}
"""What should make no difference, and is worth knowing where it does."""


def not_alike(arms: Sequence[Arm]) -> Iterator[str]:
    """A line for each setting that makes the comparison unfair."""
    runs = [run for arm in arms for run in arm.runs]
    extra = sorted({name for run in runs for name in run.config.extra} - {"model_sha256"})
    more: dict[str, _Value] = {name: lambda run, name=name: run.config.extra.get(name, "none") for name in extra}  # type: ignore[misc]
    same_tasks = len({frozenset(run.config.tasks) for run in runs}) == 1
    for name, of in {**UNFAIR, **more}.items():
        if name == "prompts" and not same_tasks:  # the digest is over all of a run's tasks
            continue
        if said := _different(arms, of):
            yield f"not a fair comparison, other {name}: {said}"


def _different(arms: Sequence[Arm], of: _Value) -> str:
    """By arm, the values that are known, where they are not all the same."""
    known = {
        arm.name: list(dict.fromkeys(str(value) for run in arm.runs if (value := of(run)) is not None)) for arm in arms
    }
    if len({value for values in known.values() for value in values}) < 2:
        return ""
    return "; ".join(f"{name} {' and '.join(values) or 'not known'}" for name, values in known.items())


def said_of_arms(arms: Sequence[Arm]) -> Iterator[str]:
    """What else has to be known: pooled runs, what was left out, what should make no difference."""
    for arm in arms:
        yield from _said_of_arm(arm)
    for name, of in OTHER.items():
        if said := _different(arms, of):
            yield f"other {name}: {said}"
    if len({run.config.suite_version for arm in arms for run in arm.runs}) > 1:
        if any(not run.asked for arm in arms for run in arm.runs):
            yield "of reports alone it cannot be said which tasks changed with the version of the suite"
        else:
            yield "tasks of other versions are taken for the same where goal and tests are"


def _said_of_arm(arm: Arm) -> Iterator[str]:
    if len(arm.runs) > 1:
        seeds = dict.fromkeys(run.config.seed for run in arm.runs)
        what = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else "parts of one suite"
        yield f"{arm.name} is {len(arm.runs)} runs: {what}"
    if missing := arm.planned - arm.played:
        yield f"{arm.name} is not complete: {missing} of {arm.planned} rollouts were not played"
    if uncounted := arm.played - sum(map(len, arm.counted.values())):
        why = "unscored" if arm.tested else "cut off"
        yield f"{arm.name}: {uncounted} of {arm.played} rollouts are {why}, and are left out"
    if forks := sum(run.forks for run in arm.runs):
        yield f"{arm.name}: {forks} forked rollouts are left out"


def verdict(solved: SolvedDifference | None, comparisons: int, first: str, second: str) -> str:
    """Args: comparisons: how many there are with the baseline, for which p was corrected."""
    if solved is None:
        return NOT_TESTED
    head = f"{_counted(solved)}, {_p_of(solved, comparisons)}"
    if solved.adjusted <= ALPHA:
        relation = "more" if solved.difference > 0 else "less"
        return f"{head}: evidence that {second} solves {relation} than {first}"
    return f"{head}: no evidence of a difference{_needed(solved)}"


def _counted(solved: SolvedDifference) -> str:
    gained, lost = len(solved.gained), len(solved.lost)
    if not gained and not lost:
        return "no task was gained or lost"
    if solved.single:
        return f"{gained or 'none'} gained, {lost or 'none'} lost"
    return f"better on {gained or 'no'} task{'s' * (gained != 1)}, worse on {lost or 'none'}"


def _p_of(solved: SolvedDifference, comparisons: int) -> str:
    corrected = f" ({p_words(solved.adjusted)} after correction for {comparisons} comparisons)"
    return p_words(solved.p) + corrected * (comparisons > 1)


def p_words(p: float) -> str:
    """Two digits; a half, such as that of 0.125, is rounded up as people do."""
    return "p < 0.001" if p < 0.001 else f"p = {p * (1 + 1e-9):.2g}"


def _needed(solved: SolvedDifference) -> str:
    """How many tasks it would take."""
    if not solved.gained and not solved.lost:
        return ""
    if solved.more_than is None and solved.more_tasks is None:
        return "; both solve equally many, so no number of tasks can be named that would show one"
    count = f"more than {solved.more_than:,}" if solved.more_than is not None else f"{solved.more_tasks}"
    tasks = f"{count} more task{'s' * (solved.more_tasks != 1)}{'' if solved.single else ', played as often,'}"
    return f"; {tasks} would be needed to see one of this size with 80% power"


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names in a line, the first ones of many."""
    every = list(names)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")
