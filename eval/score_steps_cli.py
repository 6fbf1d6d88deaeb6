"""`repo-agent score-steps`: how many of a task's tests pass after each edit of a stored rollout."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from eval.metrics import Curve
from eval.replay_cli import EXIT_DIVERGED, EXIT_INFRASTRUCTURE, Pass, StoredRun, add_stored_run_flags, stored_run
from eval.report import Report, print_curves, write_report
from eval.step_scores import StepsScored, TreeGrader, score_steps
from harness.cli import Parser
from harness.errors import UsageError
from harness.progress import console
from harness.records import Trace
from harness.run_files import REPORT_FILE
from harness.trace_store import TraceStore
from sandboxes.no_sandbox import NONE


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="repo-agent score-steps", description="Run the tests on the tree after each stored edit.")
    add_stored_run_flags(made)
    made.add_argument("--no-verdict-cache", action="store_true", help="test again what was tested before")
    return made


def main(argv: Sequence[str]) -> int:
    """Run the command: 0, 1 where a tree could not be made again, 3 where infrastructure failed for all or too often.

    Each step score is written as a note as soon as it is there; one that is there already is not taken again.
    """
    args = parser().parse_args(argv)
    with stored_run(args, cached=not args.no_verdict_cache) as run, TraceStore(run.directory) as store:
        if run.backend.name == NONE:
            raise UsageError(f"{run.directory} holds answers to questions: no tests can be counted after their steps")
        for line in run.notices:
            print(f"repo-agent: {line}", file=sys.stderr)
        run.prepare(2)
        scoring = _Scoring(run, store)
        passed = Pass(run, scoring.one, scoring.take).go(args.num_workers)
        curves = {rollout: scoring.curves[rollout] for rollout in sorted(scoring.curves)}
        if curves:
            print_curves(curves, console())
        _into_report(run, curves)
    return scoring.conclude(passed.stopped)


class _Scoring:
    """Scores, says how far it is, and counts."""

    def __init__(self, run: StoredRun, store: TraceStore) -> None:
        self._run, self._store = run, store
        self._grader = TreeGrader(run.tasks, run.suite.version, run.backend)
        self._missing: set[str] = set()
        self._rollouts = self._noted = self._diverged = self._failed = 0
        self.curves: dict[str, Curve] = {}

    def one(self, trace: Trace) -> StepsScored:
        if trace.header.task not in self._run.tasks:
            self._missing.add(trace.header.task)
            return StepsScored(trace.header.rollout, 0, ())
        return score_steps(trace, self._grader, self._store.note)

    def take(self, found: StepsScored) -> None:
        self._rollouts += 1
        self._noted += found.noted
        self._diverged += bool(found.diverged)
        self._failed += bool(found.fault)
        if found.curve:
            self.curves[found.rollout] = found.curve
        trouble = found.fault or (f"DIVERGED: {found.diverged}" if found.diverged else "")
        said = f"{found.noted} step scores{f', {trouble}' if trouble else ''}"
        print(f"[{self._rollouts}/{len(self._run.rollouts)}] {found.rollout}: {said}", file=sys.stderr, flush=True)

    def conclude(self, stopped: str) -> int:
        """Say what it all came to; the exit code."""
        print(f"{self._noted} step scores written, {self._rollouts} rollouts looked at")
        if self._diverged:
            print(f"not scored to the end: {self._diverged} rollouts whose trees are not those that were recorded")
        if self._failed:
            print(f"not scored to the end: {self._failed} rollouts, for faults of the infrastructure")
        if self._missing:
            print(f"tasks that the suite does not have: {', '.join(sorted(self._missing))}")
        if stopped:
            print(f"STOPPED EARLY: {stopped}")
        if self._failed and (stopped or self._failed == self._rollouts):
            return EXIT_INFRASTRUCTURE
        return EXIT_DIVERGED if self._diverged else 0


def _into_report(run: StoredRun, curves: dict[str, Curve]) -> None:
    """Put the curves into the run's report, where there is one and they are by its version of the suite."""
    path: Path = run.directory / REPORT_FILE
    if not curves or run.carried or not path.exists():
        return
    try:
        report = Report.model_validate_json(path.read_bytes())
    except ValidationError:
        print(f"repo-agent: {path} is no report of this version: the curves are not in it", file=sys.stderr)
        return
    write_report(report.model_copy(update={"curves": {**report.curves, **curves}}), path)
