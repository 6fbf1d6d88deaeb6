"""`repo-agent eval`: a policy on a suite, tests in a sandbox, traces and a report on disk."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from eval.metrics import RolloutMetrics, measure
from eval.report import make_report, print_report
from eval.sweep import SWEEP_FILE, play_sweep
from harness.cli import Parser, at_least
from harness.errors import UsageError
from harness.progress import console, notice, progress_view
from harness.progress_log import ProgressLog
from harness.records import Trace
from harness.redaction import Redactor
from harness.run import Run
from harness.run_files import REPORT_FILE, refuse_run_file
from harness.trace_store import TraceStore
from harness.training_history import trained_notices
from suites.run_cli import Stage, add_run_flags, exit_code, left_to_do, resume_notices, stage


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="repo-agent eval", description="Evaluate a policy on a suite.")
    add_run_flags(made, sweeps=True)
    made.add_argument("--seeds", type=at_least(1), default=1, help="play with so many seeds, from --seed on (1)")
    made.add_argument("--report", type=Path, help="where the report goes (default: report.json in the run directory)")
    return made


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit code is 0, 3 where infrastructure stopped the run, 130 after an interruption."""
    args = parser().parse_args(argv)
    if args.resume and not args.trace_dir:
        raise UsageError("--resume needs --trace-dir, the run to continue")
    if len(args.model) > 1 or args.seeds > 1:
        return play_sweep(args, _staged)
    if args.trace_dir and (args.trace_dir / SWEEP_FILE).exists():
        raise UsageError(f"{args.trace_dir} holds a sweep: give its --model and --seeds, or another --trace-dir")
    args.model = args.model[0] if args.model else ""
    return _staged(args)


def _staged(args: argparse.Namespace) -> int:
    with stage(args) as made:
        return evaluate(args, made)


def evaluate(args: argparse.Namespace, stage: Stage) -> int:
    """Play the run of these flags, and write and print its report; the exit code as that of `main`."""
    jobs = stage.jobs()
    for job in jobs:
        stage.source.policy(job.task, job.index)  # whatever it lacks is said before the run
    seen = trained_notices(args.model, (task.id for task in stage.tasks))
    directory = args.trace_dir or stage.new_directory()
    where = _writable(args.report) if args.report else directory / REPORT_FILE
    resumed = stage.claim(directory, args.resume)
    began = time.monotonic()
    metrics: list[RolloutMetrics] = []
    with TraceStore(directory) as store:
        if resumed:
            jobs = left_to_do(stage, directory, jobs, lambda trace: metrics.append(measure(trace)))
        notices = [*stage.notices, *seen, *resume_notices(args.resume, resumed, len(metrics), store.torn_bytes)]
        head = (
            f"{len(jobs)} rollouts to play of {stage.config.policy} on {stage.suite.name}, sandbox {stage.backend.name}"
        )
        for line in (head, *notices):
            print(f"repo-agent: {line}", file=sys.stderr)
        before = len(metrics), sum(each.solved is True for each in metrics)
        with (
            ProgressLog(directory, notice) as log,
            progress_view(len(jobs), log=log, budget=stage.budget, before=before) as progress,
        ):

            def done(trace: Trace) -> None:
                metrics.append(measure(trace))
                progress.done(_line(metrics[-1]), metrics[-1].solved)

            run = Run(
                stage.config, stage.suite, stage.source, stage.backend, store, stage.budget, done, progress.workers
            )
            outcome = run.play(jobs, args.num_workers)
            log.leave(*outcome.left)
    seconds = time.monotonic() - began
    about = (stage.versions, stage.sandbox, stage.uses_cache)
    report = make_report(stage.config, metrics, outcome, *about, notices, seconds, stage.origin)
    where.write_text(Redactor()(report.model_dump_json(indent=2)) + "\n", encoding="utf-8")
    print_report(report, console())
    print(f"report: {where}\ntraces: {directory}")
    return exit_code(outcome)


def _writable(path: Path) -> Path:
    """The path, once it is sure that a report can be written there: better now than after the run."""
    refuse_run_file(path, "--report")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a", encoding="utf-8").close()
    except OSError as error:
        raise UsageError(f"cannot write report {path}: {error.strerror}") from error
    return path


def _line(metrics: RolloutMetrics) -> str:
    verdict = {True: "solved", False: "not solved", None: "no score"}[metrics.solved]
    said = f": {Redactor()(metrics.error)}" if metrics.error else ""
    return f"{metrics.rollout} {verdict}, {metrics.steps} steps, {metrics.seconds:.1f} s{said}"
