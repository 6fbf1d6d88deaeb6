"""What a comparison says, as it is written to JSON."""

from __future__ import annotations

from enum import StrEnum

from harness.records import Record

COMPARE_FORMAT = 1


class TestName(StrEnum):
    """The test of the primary metric."""

    __test__ = False

    MCNEMAR = "McNemar, exact"
    SIGN_FLIPS = "sign flips"


class ArmResult(Record):
    """An arm, on the tasks that are compared."""

    name: str
    runs: tuple[str, ...]
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    rollouts: int
    """Those that count: with a score, or ended where nothing was tested."""
    left_out: int
    """Rollouts without a score, or cut off, whatever their task."""
    solved: int | None
    rate: float | None
    """Mean of the tasks' rates; None where it was not tested."""
    interval: tuple[float, float] | None
    """95%, Wilson, with tasks as the units."""
    pass_at_k: dict[str, float]


class Flip(Record):
    """A task that one side solves more often."""

    task: str
    first: float
    second: float


class MetricDifference(Record):
    """Another metric, on the tasks where both sides have it: means over tasks of the rollouts' means."""

    name: str
    tasks: int
    first: float
    second: float
    difference: float
    interval: tuple[float, float] | None
    p: float
    adjusted: float = 1.0
    """Of p, after Holm's correction for all these metrics."""


class SolvedDifference(Record):
    """The primary metric."""

    test: TestName
    single: bool
    """Each side has one rollout a task."""
    difference: float
    interval: tuple[float, float] | None
    """95%, bootstrapped over tasks; it takes no part in the verdict. None where all tasks differ by the same."""
    gained: tuple[Flip, ...]
    lost: tuple[Flip, ...]
    p: float
    adjusted: float
    """Of p, after Holm's correction for all comparisons with the baseline."""
    more_tasks: int | None = None
    """So many more tasks would show a difference of this size with 80% power; None where there is no such number."""
    more_than: int | None = None
    """It is more than so many."""


class Comparison(Record):
    """An arm against the baseline."""

    first: str
    second: str
    solved: SolvedDifference | None
    """None where one was not tested."""
    metrics: tuple[MetricDifference, ...]
    verdict: str


class Compared(Record):
    """All that a comparison says."""

    format: int = COMPARE_FORMAT
    suite: str
    tasks: tuple[str, ...]
    """That all arms have; everything rests on them."""
    left_out: dict[str, str]
    """Other tasks, and why they are not compared."""
    warnings: tuple[str, ...]
    """What makes the comparison unfair."""
    notes: tuple[str, ...]
    arms: tuple[ArmResult, ...]
    comparisons: tuple[Comparison, ...] = ()
