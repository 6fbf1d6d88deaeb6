"""`repo-agent rescore`: stored final trees graded again, by another version of the suite or in another sandbox."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence

from eval.replay_cli import EXIT_DIVERGED, EXIT_INFRASTRUCTURE, Pass, StoredRun, add_stored_run_flags, stored_run
from eval.step_scores import Rescored, TreeGrader, rescored, rescored_answer
from harness.cli import Parser
from harness.records import Score, TestPolicy, Trace
from harness.trace_store import TraceStore
from suites.opening import runs_code


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="repo-agent rescore", description="Grade stored final trees again, without a model.")
    add_stored_run_flags(made)
    made.add_argument("--only-unscored", action="store_true", help="only rollouts that have no score by this version")
    made.add_argument("--no-verdict-cache", action="store_true", help="test again what was tested before")
    return made


def main(argv: Sequence[str]) -> int:
    """Run the command: 0, 1 where a tree could not be made again, 3 where infrastructure failed for all or too often.

    A grade is written as a note as soon as it is there; a fault of the infrastructure leaves no note.
    """
    args = parser().parse_args(argv)
    with stored_run(args, cached=not args.no_verdict_cache) as run, TraceStore(run.directory) as store:
        for line in run.notices:
            print(f"repo-agent: {line}", file=sys.stderr)
        run.prepare(1)
        rescoring = _Rescoring(run, store, args.only_unscored)
        passed = Pass(run, rescoring.one, rescoring.take).go(args.num_workers)
    return rescoring.conclude(passed.stopped)


class _Rescoring:
    """Grades, writes the notes, says what changed, and counts."""

    def __init__(self, run: StoredRun, store: TraceStore, only_unscored: bool) -> None:
        self._run, self._store, self._only_unscored = run, store, only_unscored
        self._grader = TreeGrader(run.tasks, run.suite.version, run.backend)
        self._counts: Counter[str] = Counter()
        self._missing: set[str] = set()

    def one(self, trace: Trace) -> Rescored:
        grade = trace.grade(self._run.suite.version)
        if trace.header.task not in self._run.tasks:
            self._missing.add(trace.header.task)
            skipped = "of tasks that the suite does not have"
        elif trace.done is None:
            skipped = "whose agent was not done"
        elif self._only_unscored and grade is not None and grade.value is not None:
            skipped = "scored already"
        elif runs_code(task := self._run.tasks[trace.header.task]):
            return rescored(trace, self._grader)
        else:
            suite, backend = self._run.suite, self._run.backend
            return rescored_answer(trace, suite.environment(task, backend, TestPolicy.FINAL), suite.version, backend)
        return Rescored(trace.header.rollout, grade, skipped=skipped)

    def take(self, found: Rescored) -> None:
        if found.fault or found.diverged:
            self._counts["failed" if found.fault else "diverged"] += 1
            print(f"{found.rollout}: {found.fault or f'DIVERGED: {found.diverged}'}", file=sys.stderr, flush=True)
        elif found.note:
            self._store.note(found.note)
            self._counts["graded"] += 1
            self._counts["changed"] += found.changed
            change = f"{_value(found.before)} -> {_value(found.note.score)}"
            print(f"{found.rollout}: {change}{f' ({found.note.score.why})' * found.changed}", flush=True)
        else:
            self._counts[found.skipped] += 1

    def conclude(self, stopped: str) -> int:
        """Say what it all came to; the exit code."""
        counts, suite = self._counts, self._run.suite
        where = f"{suite.name} {suite.version[:12]} in {self._run.backend.name}"
        graded, changed = counts.pop("graded", 0), counts.pop("changed", 0)
        print(f"{graded} rollouts graded by {where}, {changed} changed")
        code = EXIT_DIVERGED if counts["diverged"] else 0
        if counts["failed"] and (stopped or not graded):
            code = EXIT_INFRASTRUCTURE
        for what, count in counts.items():
            if count:
                print(f"not graded: {count} rollouts {_NAMED.get(what, what)}")
        if self._missing:
            print(f"tasks that the suite does not have: {', '.join(sorted(self._missing))}")
        if stopped:
            print(f"STOPPED EARLY: {stopped}")
        return code


_NAMED = {
    "failed": "for faults of the infrastructure",
    "diverged": "whose trees are not those that were recorded",
}


def _value(score: Score | None) -> str:
    return "unscored" if score is None or score.value is None else str(score.value)
