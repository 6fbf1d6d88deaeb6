"""What is measured of rollouts: computed from traces alone, so that a stored run can be measured again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from pydantic import Field

from harness.records import Record, StopReason, TestPolicy, Trace
from harness.statistics import mean, pass_at_k, wilson_interval
from sandboxes.no_sandbox import NONE
from sandboxes.workspace import clean_path
from suites.gsm8k.environment import PARTS
from tools.protocol import FINAL

Curve = tuple[tuple[int, int, int], ...]
"""The expected tests that passed after each edit: (step, counted from 1; passed; expected). Step 0: the task's tree."""


class RolloutMetrics(Record):
    """One rollout."""

    rollout: str
    task: str
    index: int
    solved: bool | None
    """None: unscored, or not tested."""
    score: float | None
    why: str
    stop: StopReason | None
    error: str
    steps: int
    parse_errors_by_cause: dict[str, int]
    """Messages that were not strictly one protocol object."""
    parse_errors_after_repair_by_cause: dict[str, int]
    """Those of them that could not be carried out either."""
    wrote: bool
    loop_detections: int
    first_write_step: int | None
    """Counted from 1."""
    files_read_before_write: int | None
    repeated_calls: int
    """Calls with the same canonical action and the same observation as an earlier one."""
    tool_calls: dict[str, int]
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    model_seconds: float
    tool_seconds: float
    test_seconds: float
    test_runs: int
    test_runs_cached: int
    """Those of them that the verdict cache answered."""
    seconds: float
    retried_faults: dict[str, int]
    ignored_edits: tuple[str, ...]
    parts: dict[str, float] = Field(default_factory=dict)
    """Of the score of a question: 0 or 1 each."""
    curve: Curve = Field(default=(), exclude=True)
    """On disk it stands with those of the other rollouts, in the report's `curves`."""


class Share(Record):
    """How often something is so."""

    rate: float
    interval: tuple[float, float]
    """95%, Wilson; with several rollouts a task it counts tasks, not rollouts, as the independent units."""


class Summary(Record):
    """Several rollouts. Means are over rollouts; counts are totals; None where there is nothing to average."""

    rollouts: int
    scored: int
    unscored: int
    """Rollouts that the infrastructure, or an interruption, left without a score."""
    not_tested: int
    solved: int
    solved_rate: float | None
    solved_interval: tuple[float, float] | None
    """As that of a `Share`."""
    pass_at_k: dict[str, float]
    parse_errors: int
    parse_errors_by_cause: dict[str, int]
    parse_errors_after_repair: int
    parse_errors_after_repair_by_cause: dict[str, int]
    write_file_rate: float | None
    """Share of rollouts that ever wrote a file."""
    loop_detections: int
    loop_rate: float | None
    avg_steps: float | None
    avg_first_write_step: float | None
    avg_files_read_before_write: float | None
    repeated_calls: int
    tool_calls: dict[str, int]
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    model_seconds: float
    tool_seconds: float
    test_seconds: float
    test_runs: int
    test_runs_cached: int
    seconds: float
    retried_faults: dict[str, int]
    stop_reasons: dict[str, int]
    errors: dict[str, int] = Field(default_factory=dict)
    parts: dict[str, Share] = Field(default_factory=dict)
    """Of the scores of questions: correct, answered, thinking, exact."""


def measure(trace: Trace) -> RolloutMetrics:
    """The metrics of one rollout."""
    steps = trace.steps
    value = trace.score.value if trace.score else None
    writes = [number for number, step in enumerate(steps, 1) if step.call.name == "write_file" and step.error is None]
    first = writes[0] if writes else None
    problems = [step.call for step in steps if step.call.problem]
    cached = _cached(trace)
    usages = [step.completion.usage for step in steps]
    costs = [step.completion.cost_usd for step in steps if step.completion.cost_usd is not None]
    return RolloutMetrics(
        rollout=trace.header.rollout,
        task=trace.header.task,
        index=trace.header.index,
        solved=None if value is None else value == 1.0,
        score=value,
        why=trace.score.why if trace.score else "",
        stop=trace.stop,
        error=trace.error,
        steps=len(steps),
        parse_errors_by_cause=_counted(str(call.problem) for call in problems),
        parse_errors_after_repair_by_cause=_counted(str(call.problem) for call in problems if not call.usable),
        wrote=bool(writes),
        loop_detections=_loops(trace),
        first_write_step=first,
        files_read_before_write=_files_read(trace, first) if first else None,
        repeated_calls=_repeated(trace),
        tool_calls=_counted(step.call.name for step in steps if step.call.usable and step.call.name != FINAL),
        prompt_tokens=sum(usage.prompt_tokens or 0 for usage in usages),
        completion_tokens=sum(usage.completion_tokens or 0 for usage in usages),
        cost_usd=sum(costs) if costs else None,
        model_seconds=sum(step.completion.seconds for step in steps),
        tool_seconds=sum(step.tool_seconds for step in steps),
        test_seconds=sum(step.test_seconds for step in steps) + trace.score_seconds,
        test_runs=len(cached),
        test_runs_cached=sum(cached),
        seconds=trace.seconds,
        retried_faults=_counted(fault for step in steps for fault in step.completion.faults),
        ignored_edits=trace.score.ignored_edits if trace.score else (),
        parts={name: trace.score.parts[name] for name in PARTS if name in trace.score.parts} if trace.score else {},
        curve=curve(trace),
    )


def curve(trace: Trace, suite_version: str | None = None) -> Curve:
    """The step scores of a rollout by a version of the suite (default: the run's own); of a fork, its own steps'."""
    numbers: dict[str | None, int] = {step.id: number for number, step in enumerate(trace.steps, 1)}
    numbers[None] = 0
    found = [(numbers[step], note) for step, note in trace.step_scores(suite_version).items() if step in numbers]
    return tuple(sorted((number, note.passed, note.expected) for number, note in found if note.passed is not None))


def summarise(rollouts: Sequence[RolloutMetrics], test_policy: TestPolicy) -> Summary:
    """The metrics of several rollouts together."""
    solved = [rollout.solved for rollout in rollouts if rollout.solved is not None]
    rate = mean([float(value) for value in solved])
    never = test_policy is TestPolicy.NEVER
    costs = [rollout.cost_usd for rollout in rollouts if rollout.cost_usd is not None]
    strict = _added(rollout.parse_errors_by_cause for rollout in rollouts)
    repaired = _added(rollout.parse_errors_after_repair_by_cause for rollout in rollouts)
    scored = [rollout for rollout in rollouts if rollout.solved is not None]
    units = len({rollout.task for rollout in scored})
    units = units if units > 1 else len(scored)
    return Summary(
        rollouts=len(rollouts),
        scored=len(solved),
        unscored=0 if never else len(rollouts) - len(solved),
        not_tested=len(rollouts) if never else 0,
        solved=sum(solved),
        solved_rate=rate,
        solved_interval=None if rate is None else wilson_interval(rate, units),
        pass_at_k=_pass_at(rollouts),
        parse_errors=sum(strict.values()),
        parse_errors_by_cause=strict,
        parse_errors_after_repair=sum(repaired.values()),
        parse_errors_after_repair_by_cause=repaired,
        write_file_rate=mean([float(rollout.wrote) for rollout in rollouts]),
        loop_detections=sum(rollout.loop_detections for rollout in rollouts),
        loop_rate=mean([float(rollout.loop_detections > 0) for rollout in rollouts]),
        avg_steps=mean([rollout.steps for rollout in rollouts]),
        avg_first_write_step=mean([r.first_write_step for r in rollouts if r.first_write_step is not None]),
        avg_files_read_before_write=mean(
            [r.files_read_before_write for r in rollouts if r.files_read_before_write is not None]
        ),
        repeated_calls=sum(rollout.repeated_calls for rollout in rollouts),
        tool_calls=_added(rollout.tool_calls for rollout in rollouts),
        prompt_tokens=sum(rollout.prompt_tokens for rollout in rollouts),
        completion_tokens=sum(rollout.completion_tokens for rollout in rollouts),
        cost_usd=sum(costs) if costs else None,
        model_seconds=sum(rollout.model_seconds for rollout in rollouts),
        tool_seconds=sum(rollout.tool_seconds for rollout in rollouts),
        test_seconds=sum(rollout.test_seconds for rollout in rollouts),
        test_runs=sum(rollout.test_runs for rollout in rollouts),
        test_runs_cached=sum(rollout.test_runs_cached for rollout in rollouts),
        seconds=sum(rollout.seconds for rollout in rollouts),
        retried_faults=_added(rollout.retried_faults for rollout in rollouts),
        stop_reasons=_counted(str(rollout.stop) for rollout in rollouts),
        errors=_counted(rollout.error for rollout in rollouts if rollout.error),
        parts=_shares([rollout.parts for rollout in scored if rollout.parts], units),
    )


def _shares(parts: Sequence[dict[str, float]], units: int) -> dict[str, Share]:
    rates = {name: sum(each[name] for each in parts) / len(parts) for name in PARTS if parts}
    return {name: Share(rate=rate, interval=wilson_interval(rate, units)) for name, rate in rates.items()}


def _pass_at(rollouts: Sequence[RolloutMetrics]) -> dict[str, float]:
    """pass@k for every k that all tasks have enough scored rollouts for; powers of two, and the largest."""
    by_task: dict[str, list[bool]] = {}
    for rollout in rollouts:
        if rollout.solved is not None:
            by_task.setdefault(rollout.task, []).append(rollout.solved)
    most = min(map(len, by_task.values()), default=0)
    ks = sorted({k for k in (1, 2, 4, 8, 16, 32, 64, most) if 1 <= k <= most})
    estimates = {k: [pass_at_k(len(solved), sum(solved), k) for solved in by_task.values()] for k in ks}
    return {str(k): sum(values) / len(values) for k, values in estimates.items()}


def _loops(trace: Trace) -> int:
    """How often a loop began."""
    flags = [step.loop for step in trace.steps]
    return sum(now and not before for before, now in zip([False, *flags], flags, strict=False))


def _files_read(trace: Trace, first_write: int) -> int:
    done = [step.call for step in trace.steps[:first_write] if step.call.usable and step.error is None]
    return len({clean_path(call.args["rel_path"]) for call in done if call.name == "read_file"})


def _cached(trace: Trace) -> list[bool]:
    """Of each test run, whether the verdict cache answered it."""
    if trace.header.sandbox == NONE:
        return []
    runs = [step.report.cached for step in trace.steps if step.report]
    return runs + ([trace.score.cached] if trace.score and trace.score.value is not None else [])


def _repeated(trace: Trace) -> int:
    calls = [(step.call.canonical, step.observation) for step in trace.steps if step.call.usable]
    return len(calls) - len(set(calls))


def _counted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _added(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items()))
