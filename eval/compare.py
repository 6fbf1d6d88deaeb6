"""Arms compared, task by task: which solves more, whether that could be luck, and what else differs.

Solved is the primary metric. With one rollout a task on both sides McNemar's exact test is taken, else sign flips of
the tasks' mean differences: rollouts of one task are no independent observations, and no test may take them for such.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from eval.compare_records import ArmResult, Compared, Comparison, Flip, MetricDifference, SolvedDifference, TestName
from eval.compare_runs import Arm
from eval.compare_words import not_alike, said_of_arms, verdict
from eval.metrics import RolloutMetrics
from harness.errors import UsageError
from harness.statistics import (
    ALPHA,
    holm,
    mcnemar,
    mcnemar_power,
    mean,
    paired_difference,
    pass_at_k,
    sign_flip,
    sign_flip_power,
    task_differences,
    tasks_needed,
    wilson_interval,
)

MOST_MORE_TASKS = 1_000
"""No larger number of tasks that would be needed is searched for."""

METRICS: Mapping[str, Callable[[RolloutMetrics], float | None]] = {
    "steps": lambda rollout: rollout.steps,
    "tokens": lambda rollout: rollout.prompt_tokens + rollout.completion_tokens,
    "cost in USD": lambda rollout: rollout.cost_usd,
    "parse errors": lambda rollout: sum(rollout.parse_errors_by_cause.values()),
    "loops": lambda rollout: rollout.loop_detections,
    "seconds": lambda rollout: rollout.seconds,
}
"""Beside solved, of one rollout; None where it is not known."""

Scores = Mapping[str, Sequence[float]]
"""By task what its rollouts have."""


def compared(arms: Sequence[Arm]) -> Compared:
    """The first arm against each other one.

    Raises:
        UsageError: the arms are of different suites, or have no task in common.
    """
    for arm in arms[1:]:
        if not arm.first.same_suite(arms[0].first):
            suites = f"{arms[0].name} of {arms[0].first.suite}, {arm.name} of {arm.first.suite}"
            raise UsageError(f"arms of different suites cannot be compared: {suites}")
    counted = {arm.name: arm.counted for arm in arms}
    left_out = _left_out(arms, counted)
    tasks = sorted(set(counted[arms[0].name]) - set(left_out))
    if not tasks:
        each = ", ".join(f"{name} {len(found)}" for name, found in counted.items())
        why = next(iter(left_out.values()), "no rollout has a score")
        raise UsageError(f"the arms have no task in common that can be compared (tasks with a score: {each}): {why}")
    results = {arm.name: _metrics_of(counted[arm.name], tasks) for arm in arms}
    return Compared(
        suite=arms[0].first.suite,
        tasks=tuple(tasks),
        left_out=left_out,
        warnings=tuple(not_alike(arms)),
        notes=tuple(said_of_arms(arms)),
        arms=tuple(_arm_result(arm, results[arm.name]) for arm in arms),
        comparisons=tuple(_comparisons(arms, results)),
    )


def _left_out(arms: Sequence[Arm], counted: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    """Tasks that not all arms have, or that are not the same in all, and why."""
    found: dict[str, str] = {}
    for task in sorted({task for arm in arms for run in arm.runs for task in run.config.tasks}):
        chosen = {arm.name for arm in arms if any(task in run.config.tasks for run in arm.runs)}
        without = [arm.name for arm in arms if task not in counted[arm.name]]
        if missing := [arm.name for arm in arms if arm.name not in chosen]:
            found[task] = f"not among the tasks of {', '.join(missing)}"
        elif without:
            found[task] = f"no rollout that counts in {', '.join(without)}"
        elif _changed(arms, task):
            found[task] = "its goal or its tests are not the same in all arms"
    return found


def _changed(arms: Sequence[Arm], task: str) -> bool:
    """Only asked where the suite's version is not the same: with it, tasks are."""
    runs = [run for arm in arms for run in arm.runs if task in run.config.tasks]
    if len({run.config.suite_version for run in runs}) == 1:
        return False
    return len({run.asked[task] for run in runs if task in run.asked}) > 1


def _metrics_of(counted: Mapping[str, Sequence[RolloutMetrics]], tasks: Sequence[str]) -> dict[str, Scores]:
    """By metric, `solved` too, what the rollouts of the compared tasks have."""
    chosen = {task: counted[task] for task in tasks}
    found: dict[str, Scores] = {
        name: {task: [value for each in its if (value := of(each)) is not None] for task, its in chosen.items()}
        for name, of in METRICS.items()
    }
    found["solved"] = {
        task: [float(each.solved) for each in its if each.solved is not None] for task, its in chosen.items()
    }
    return found


def _arm_result(arm: Arm, results: Mapping[str, Scores]) -> ArmResult:
    solved = results["solved"] if arm.tested else {}
    rates = [sum(its) / len(its) for its in solved.values()]
    rate = mean(rates)
    counts = [len(its) for its in solved.values()]
    units = len(rates) if len(rates) > 1 else sum(counts)
    most = min(counts, default=0)
    ks = sorted({k for k in (2, 4, 8, 16, 32, 64, most) if 1 < k <= most})
    return ArmResult(
        name=arm.name,
        runs=tuple(str(run.path) for run in arm.runs),
        models=tuple(dict.fromkeys(run.config.model or run.config.policy for run in arm.runs)),
        seeds=tuple(dict.fromkeys(run.config.seed for run in arm.runs)),
        rollouts=sum(len(its) for its in results["steps"].values()),
        left_out=arm.played - sum(map(len, arm.counted.values())),
        solved=round(sum(map(sum, solved.values()))) if arm.tested else None,
        rate=rate,
        interval=None if rate is None else wilson_interval(rate, units),
        pass_at_k={str(k): math.fsum(_pass_at(its, k) for its in solved.values()) / len(solved) for k in ks},
    )


def _pass_at(solved: Sequence[float], k: int) -> float:
    return pass_at_k(len(solved), round(sum(solved)), k)


def _comparisons(arms: Sequence[Arm], results: Mapping[str, Mapping[str, Scores]]) -> list[Comparison]:
    """Each with the p-values of all others known: solved is corrected over the comparisons."""
    base, others = arms[0], arms[1:]
    tested = [arm for arm in others if arm.tested and base.tested]
    alpha = ALPHA / max(1, len(tested))
    primary = {arm.name: solved_test(results[base.name]["solved"], results[arm.name]["solved"]) for arm in tested}
    adjusted = dict(zip(primary, holm([p for _, p in primary.values()]), strict=True))
    found = []
    for arm in others:
        first, second = results[base.name], results[arm.name]
        solved = None
        if arm.name in primary:
            solved = _solved(first["solved"], second["solved"], *primary[arm.name], adjusted[arm.name], alpha)
        said = verdict(solved, len(tested), base.name, arm.name)
        metrics = tuple(_metric_differences(first, second))
        found.append(Comparison(first=base.name, second=arm.name, solved=solved, metrics=metrics, verdict=said))
    return found


def solved_test(first: Scores, second: Scores) -> tuple[TestName, float]:
    """The primary test and its two-sided p-value. Raises ValueError for different tasks."""
    differences = task_differences(first, second)
    if _single(first, second):
        return TestName.MCNEMAR, mcnemar(differences.count(-1.0), differences.count(1.0))
    return TestName.SIGN_FLIPS, sign_flip(differences)


def _single(first: Scores, second: Scores) -> bool:
    return all(len(its) == 1 for its in (*first.values(), *second.values()))


def _solved(
    first: Scores,
    second: Scores,
    test: TestName,
    p: float,
    adjusted: float,
    alpha: float,
) -> SolvedDifference:
    differences = task_differences(first, second)
    flips = [
        Flip(task=task, first=sum(first[task]) / len(first[task]), second=sum(second[task]) / len(second[task]))
        for task in sorted(first)
    ]
    more = None if adjusted <= ALPHA else more_tasks(differences, _single(first, second), alpha)
    return SolvedDifference(
        test=test,
        single=_single(first, second),
        difference=math.fsum(differences) / len(differences),
        interval=_interval(differences),
        gained=tuple(flip for flip in flips if flip.second > flip.first),
        lost=tuple(flip for flip in flips if flip.second < flip.first),
        p=p,
        adjusted=adjusted,
        more_tasks=more if more is not None and more <= MOST_MORE_TASKS else None,
        more_than=MOST_MORE_TASKS if more is not None and more > MOST_MORE_TASKS else None,
    )


def more_tasks(differences: Sequence[float], single: bool, alpha: float = ALPHA) -> int | None:
    """How many more tasks like these the test needs to see such a difference with 80% power; None where there is none.

    One more than MOST_MORE_TASKS stands for all that is beyond it.
    """
    count = len(differences)
    if abs(math.fsum(differences)) < 1e-9:
        return None
    gained, lost = (sum(each * sign > 0 for each in differences) / count for sign in (1, -1))

    def power(tasks: int) -> float:
        if single:
            return mcnemar_power(gained, lost, tasks, alpha)
        return sign_flip_power(differences, tasks, alpha)

    needed = tasks_needed(power, count + 1, count + MOST_MORE_TASKS)
    return MOST_MORE_TASKS + 1 if needed is None else needed - count


def _metric_differences(first: Mapping[str, Scores], second: Mapping[str, Scores]) -> list[MetricDifference]:
    found = [each for name in METRICS if (each := _metric_difference(name, first[name], second[name]))]
    adjusted = holm([each.p for each in found])
    return [each.model_copy(update={"adjusted": p}) for each, p in zip(found, adjusted, strict=True)]


def _metric_difference(name: str, first: Scores, second: Scores) -> MetricDifference | None:
    """None where no task has it on both sides."""
    tasks = [task for task in first if first[task] and second[task]]
    if not tasks:
        return None
    one, other = ({task: side[task] for task in tasks} for side in (first, second))
    differences = task_differences(one, other)
    return MetricDifference(
        name=name,
        tasks=len(tasks),
        first=math.fsum(sum(its) / len(its) for its in one.values()) / len(tasks),
        second=math.fsum(sum(its) / len(its) for its in other.values()) / len(tasks),
        difference=math.fsum(differences) / len(tasks),
        interval=_interval(differences),
        p=sign_flip(differences),
    )


def _interval(differences: Sequence[float]) -> tuple[float, float] | None:
    """None where a bootstrap over tasks has nothing to go by: all tasks differ by the same."""
    found = paired_difference(differences)
    return (found.low, found.high) if len(set(differences)) > 1 else None
