"""The report of a run: a JSON file with pinned keys, and a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eval.metrics import Curve, RolloutMetrics, Summary, summarise
from harness.records import Record, StopReason, TestPolicy
from harness.redaction import Redactor
from harness.run import RunOutcome
from harness.run_files import Origin, RunConfig
from sandboxes.no_sandbox import NONE

REPORT_FORMAT = 1
CURVE_WIDTH, MOST_CURVES = 40, 30
MOST_QUESTIONS = 30
_BLOCKS, _ASCII = "▁▂▃▄▅▆▇█", "_.-~=+*#"


class Report(Record):
    """All that a run says. `total` and each of `tasks` have the same keys."""

    format: int = REPORT_FORMAT
    config: RunConfig
    versions: dict[str, str]
    sandbox: dict[str, str | bool]
    """Which backend ran the tests, what their runs shared, and what it promises."""
    verdict_cache: bool
    """Whether known verdicts were taken from the verdict cache; the summaries count them as `test_runs_cached`."""
    notices: tuple[str, ...]
    interrupted: bool
    stopped: str
    not_started: int
    wall_seconds: float
    total: Summary
    tasks: dict[str, Summary]
    rollouts: tuple[RolloutMetrics, ...]
    curves: dict[str, Curve] = Field(default_factory=dict)
    """By rollout, the expected tests that passed after each edit, as far as `score-steps` has found out."""
    origin: Origin | None = None
    """What is needed to repeat the run, beside its configuration."""


def make_report(
    config: RunConfig,
    rollouts: Sequence[RolloutMetrics],
    outcome: RunOutcome,
    versions: dict[str, str],
    sandbox: dict[str, str | bool],
    verdict_cache: bool,
    notices: Sequence[str],
    wall_seconds: float,
    origin: Origin | None = None,
) -> Report:
    rollouts = sorted(rollouts, key=lambda metrics: (metrics.task, metrics.index))
    by_task: dict[str, list[RolloutMetrics]] = {}
    for rollout in rollouts:
        by_task.setdefault(rollout.task, []).append(rollout)
    return Report(
        config=config,
        versions=versions,
        sandbox=sandbox,
        verdict_cache=verdict_cache,
        notices=tuple(notices),
        interrupted=outcome.interrupted,
        stopped=outcome.stopped,
        not_started=outcome.not_started,
        wall_seconds=wall_seconds,
        total=summarise(rollouts, config.test_policy),
        tasks={task: summarise(its, config.test_policy) for task, its in by_task.items()},
        rollouts=tuple(rollouts),
        curves={rollout.rollout: rollout.curve for rollout in rollouts if rollout.curve},
        origin=origin,
    )


def write_report(report: Report, path: Path) -> None:
    """Write it in one move, secrets masked. Raises OSError."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(Redactor()(report.model_dump_json(indent=2)) + "\n", encoding="utf-8")
    new.replace(path)


def print_report(report: Report, console: Console) -> None:
    """The table: a row per task, then what the run as a whole showed."""
    config = report.config
    name = config.policy + (f" {config.model}" if config.model else "") + (" (ORACLE)" if config.oracle else "")
    title = Text(f"{config.suite}, policy {name}, sandbox {report.sandbox['name']}, isolation {config.isolation}")
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False, padding=0)
    shown = list(report.tasks.items())[: MOST_QUESTIONS if report.total.parts else None]
    table.add_column("task", min_width=max((len(task) for task, _ in shown), default=0))
    for heading in ("solved", "steps", "writes", "parse errors", "loops", "tokens", "time s"):
        table.add_column(heading, justify="right")
    table.add_column("ended", min_width=9)
    for task, summary in shown:
        table.add_row(Text(task), *_row(summary, config.test_policy), ", ".join(summary.stop_reasons))
    if len(shown) < len(report.tasks):
        table.add_row(f"and {len(report.tasks) - len(shown)} more")
    table.add_section()
    table.add_row("all", *_row(report.total, config.test_policy), "")
    console.print(table)
    for line in _lines(report):
        console.print(line, markup=False, highlight=False)
    if report.curves:
        print_curves(report.curves, console)


def print_curves(curves: Mapping[str, Curve], console: Console, most: int = MOST_CURVES) -> None:
    """A line per rollout: the share of the expected tests that passed, edit by edit, and the first and last count."""
    blocks = _BLOCKS if console.encoding.lower().startswith("utf") else _ASCII
    console.print("expected tests that pass, after each edit:", markup=False, highlight=False)
    width = max((len(rollout) for rollout in list(curves)[:most]), default=0)
    for rollout, points in list(curves.items())[:most]:
        (_, first, _), (_, last, expected) = points[0], points[-1]
        line = f"{rollout:{width}}  {sparkline(points, blocks):{CURVE_WIDTH}}  {first} to {last} of {expected}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if len(curves) > most:
        console.print(f"and {len(curves) - most} more rollouts", markup=False, highlight=False)


def sparkline(points: Curve, blocks: str = _BLOCKS, width: int = CURVE_WIDTH) -> str:
    """One character a point, from none to all of the tests; of more points than fit, the last of each group."""
    count = min(len(points), width)
    chosen = [points[(number + 1) * len(points) // count - 1] for number in range(count)]
    shares = [passed / expected if expected else 0.0 for _, passed, expected in chosen]
    return "".join(blocks[int(share * (len(blocks) - 1))] for share in shares)


def _row(summary: Summary, test_policy: TestPolicy) -> list[str]:
    if test_policy is TestPolicy.NEVER:
        solved = "not tested"
    elif summary.unscored:
        solved = f"{summary.solved} of {summary.scored}" if summary.scored else "unscored"
    else:
        solved = f"{summary.solved} of {summary.scored}"
    return [
        solved,
        "-" if summary.avg_steps is None else f"{summary.avg_steps:.1f}",
        str(summary.tool_calls.get("write_file", 0)),
        str(summary.parse_errors),
        str(summary.loop_detections),
        str(summary.prompt_tokens + summary.completion_tokens),
        f"{summary.seconds:.1f}",
    ]


def _lines(report: Report) -> list[str]:
    total = report.total
    lines: list[str] = []
    if total.solved_rate is not None and total.solved_interval is not None:
        low, high = total.solved_interval
        lines.append(
            f"solved {total.solved} of {total.scored}: {total.solved_rate:.3f} (95% interval {low:.2f} to {high:.2f})"
        )
    lines += [
        f"{name} {share.rate:.3f} (95% interval {share.interval[0]:.2f} to {share.interval[1]:.2f})"
        for name, share in total.parts.items()
        if name != "correct"  # that is to be solved
    ]
    lines += [f"pass@{k}: {value:.3f}" for k, value in total.pass_at_k.items() if k != "1"]
    if total.parse_errors:
        lines.append(
            f"parse errors: {_said(total.parse_errors_by_cause)}; {total.parse_errors_after_repair} beyond repair"
        )
    if total.cost_usd is not None:
        lines.append(f"cost: {total.cost_usd:.4f} USD")
    lines.append(
        f"time: {report.wall_seconds:.1f} s; in rollouts: model {total.model_seconds:.1f} s, "
        f"tools {total.tool_seconds:.1f} s, tests {total.test_seconds:.1f} s"
    )
    if report.sandbox["name"] != NONE:
        cached = f"{total.test_runs_cached} of them from the verdict cache"
        lines.append(f"test runs: {total.test_runs}, {cached if report.verdict_cache else 'no verdict cache'}")
    if total.retried_faults:
        lines.append(f"faults that were retried: {_said(total.retried_faults)}")
    if total.unscored:
        lines.append(f"UNSCORED: {total.unscored} of {total.rollouts} rollouts")
    lines += [f"UNSCORED: {count} times {error}" for error, count in total.errors.items()]
    if total.stop_reasons.get(StopReason.BUDGET):
        lines.append("The budget was spent: rollouts under way were scored as they stood.")
    if report.not_started:
        lines.append(f"not started: {report.not_started} rollouts")
    if report.stopped or report.interrupted:
        lines.append(f"STOPPED EARLY: {report.stopped or 'interrupted'}")
    if report.config.oracle:
        lines.append("This policy is an oracle: it knows the answers.")
    return lines


def _said(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
