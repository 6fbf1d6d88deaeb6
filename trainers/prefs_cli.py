"""`repo-agent prefs`: rollouts, forks of them, and preference pairs that tests have verified."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.cli import Parser, amount, at_least
from harness.errors import UsageError
from harness.progress import ProgressView, notice, progress_view
from harness.progress_log import ProgressLog
from harness.records import Task, TestPolicy, Trace
from harness.run import Job, Run
from harness.run_files import refuse_run_file
from harness.trace_reader import TraceLog
from harness.trace_store import TraceStore
from suites.base import Suite
from suites.opening import runs_code
from suites.run_cli import Stage, add_run_flags, exit_code, left_to_do, resume_notices, stage
from trainers.card import atomic_file, card_paths, command_line, write_card
from trainers.forking import ForkAt, ForkPlayer, ForkSettings, Results
from trainers.formats import Target
from trainers.pairs import MARGIN, MIN_CONFIDENCE, Fork
from trainers.prefs import FREE, SOURCES, PairFile, PairRules, collect, note_pairs, only_repairs, records_path

OUTPUT = "_prefs.jsonl"


def parser() -> argparse.ArgumentParser:
    made = Parser(prog="repo-agent prefs", description="Play rollouts and forks of them, and write preference pairs.")
    add_run_flags(made)
    made.set_defaults(temperature=0.7, rollouts=4, isolation="run")
    made.add_argument("--out", type=Path, help=f"file of pairs (default: {OUTPUT} in the run directory)")
    targets = [str(item) for item in Target]
    made.add_argument("--target", choices=targets, default="together", help="format of the rows (default: together)")
    made.add_argument(
        "--pairs", type=_sources, default=SOURCES, help=f"sources of pairs (default: {','.join(SOURCES)})"
    )
    made.add_argument(
        "--fork-at",
        choices=[str(item) for item in ForkAt],
        default="disagreement",
        help="which states are forked: where rollouts differ (default), where one wrote a file, every one",
    )
    made.add_argument("--fork-actions", type=at_least(2), default=4, help="actions drawn at a state (default: 4)")
    made.add_argument("--fork-plays", type=at_least(2), default=8, help="plays of each action (default: 8)")
    made.add_argument("--fork-rollouts", type=at_least(0), default=1000, help="forked rollouts in all (default: 1000)")
    made.add_argument("--margin", type=_share, default=MARGIN, help=f"difference of values (default: {MARGIN})")
    made.add_argument(
        "--min-confidence", type=_share, default=MIN_CONFIDENCE, help=f"of measured pairs (default: {MIN_CONFIDENCE})"
    )
    made.add_argument(
        "--max-malformed", type=_share, default=0.2, help="share of pairs whose rejected side is malformed (0.2)"
    )
    made.add_argument("--allow-test-split", action="store_true", help="play tasks of the suite's test split too")
    return made


def _sources(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in SOURCES]:
        raise argparse.ArgumentTypeError(f"unknown source {unknown[0]!r}: choose from {', '.join(SOURCES)}")
    return names


def _share(text: str) -> float:
    value = amount(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"must be between 0 and 1, not {text}")
    return value


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit code is 0, 3 where infrastructure stopped the run, 130 after an interruption."""
    args = parser().parse_args(argv)
    if args.resume and not args.trace_dir:
        raise UsageError("--resume needs --trace-dir, the run to continue")
    left_out: list[str] = []

    def wanted(suite: Suite, task: Task) -> bool:
        if not runs_code(task):
            raise UsageError(f"prefs compares the actions of repairs, and {suite.name} holds questions")
        trained = args.allow_test_split or suite.split_of(task) != "test"
        left_out.extend([] if trained else [task.id])
        return trained

    names = ("pairs", "fork_at", "fork_actions", "fork_plays")
    extra = {name: ",".join(value) if isinstance(value := getattr(args, name), tuple) else value for name in names}
    with stage(args, wanted, **extra) as made:
        if left_out:
            made.notices.append(f"{len(left_out)} tasks of the test split are left out (--allow-test-split plays them)")
        if not made.tasks:
            raise UsageError(f"all tasks of {made.suite.name} are of its test split: --allow-test-split plays them")
        return _Command(args, made, list(argv)).run()


class _Command:
    """One run of the command, from rollouts to files."""

    def __init__(self, args: argparse.Namespace, stage: Stage, argv: list[str]) -> None:
        self.args, self.stage, self.argv = args, stage, argv
        self.tested = stage.config.test_policy is not TestPolicy.NEVER
        sources = frozenset(args.pairs) if self.tested else frozenset(args.pairs) & FREE
        self.rules = PairRules(sources, args.margin, args.min_confidence, args.max_malformed)
        self.results = Results()
        self.rollouts: Counter[str] = Counter()
        self.forked: Counter[str] = Counter()
        self.before = 0, 0
        """Rollouts that an interrupted run had played, and how many of them were solved."""

    def run(self) -> int:
        jobs = self.stage.jobs()
        for job in jobs:
            self.stage.source.policy(job.task, job.index)  # whatever it lacks is said before the run
        directory = self.args.trace_dir or self.stage.new_directory()
        output = _writable(self.args.out) if self.args.out else directory / OUTPUT
        resumed = self.stage.claim(directory, self.args.resume)
        with TraceStore(directory) as store:
            left = left_to_do(self.stage, directory, jobs, self._count_before) if resumed else jobs
            self._say_first(left, resume_notices(self.args.resume, resumed, len(jobs) - len(left), store.torn_bytes))
            with ProgressLog(directory, notice) as progress_log:
                forks = self._play(store, directory, jobs, left, progress_log)
                progress_log.leave(*self.outcome.left)
            with TraceLog(directory) as log:
                written = self._write(store, log, forks, output)
        self._say(written, output, directory)
        return exit_code(self.outcome)

    def _say_first(self, jobs: Sequence[Job], notices: Sequence[str]) -> None:
        stage = self.stage
        head = (
            f"{len(jobs)} rollouts to play of {stage.config.policy} on {stage.suite.name}, sandbox {stage.backend.name}"
        )
        untested = (
            [] if self.tested else ["--test-policy never: no test is run, so only protocol and loop pairs are made"]
        )
        for line in (head, *stage.notices, *notices, *untested):
            print(f"repo-agent: {line}", file=sys.stderr)

    def _play(
        self, store: TraceStore, directory: Path, jobs: list[Job], left: Sequence[Job], told: ProgressLog
    ) -> list[Fork]:
        stage, workers = self.stage, self.args.num_workers
        parts = stage.config, stage.suite, stage.source, stage.backend, store, stage.budget
        with progress_view(len(left), log=told, budget=stage.budget, before=self.before) as progress:
            self.outcome = Run(*parts, self._told(progress), progress.workers).play(left, workers)
        if "fork" not in self.rules.sources or not self.args.fork_rollouts:
            return []
        args = self.args
        settings = ForkSettings(ForkAt(args.fork_at), args.fork_actions, args.fork_plays, args.fork_rollouts)
        tasks = {task.id: task for task in stage.tasks}
        view = progress_view(args.fork_rollouts, what="forks", log=told, budget=stage.budget)
        with TraceLog(directory) as log, view as progress:
            run = Run(*parts, self._told(progress), progress.workers)
            if self.outcome.interrupted or self.outcome.stopped:
                run.cancel()  # what the log has is still made pairs of
            player = ForkPlayer(settings, tasks, run, log, self.results, workers)
            forks = list(player.forks([job.rollout for job in jobs if job.rollout in log]))
            self.forked = Counter({"states forked": player.states, "plays": args.fork_rollouts - player.left})
            if player.short:
                self.forked["ended because --fork-rollouts was spent"] = 1
        self.outcome.interrupted |= run.outcome.interrupted
        self.outcome.stopped = self.outcome.stopped or run.outcome.stopped
        return forks

    def _count_before(self, trace: Trace) -> None:
        if not trace.header.fork:
            done, solved = self.before
            self.before = done + 1, solved + (trace.score is not None and trace.score.value == 1)

    def _told(self, progress: ProgressView) -> Callable[[Trace], None]:
        def done(trace: Trace) -> None:
            if trace.header.fork:  # the others are read from the log when they are wanted
                self.results.add(trace)
            if trace.stop is None:  # only drawn
                return
            value = trace.score.value if trace.score else None
            solved = {None: "no score", 1.0: "solved"}.get(value, "not solved")
            self.rollouts[solved] += 1
            right = None if value is None else value == 1
            progress.done(f"{trace.header.rollout} {solved}, {len(trace.steps)} steps", right)

        return done

    def _write(self, store: TraceStore, log: TraceLog, forks: Sequence[Fork], output: Path) -> PairFile:
        collected = collect(log, forks, self.rules)
        if self.stage.config.oracle:
            only_repairs(collected, {task.id: self.stage.suite.reference(task) for task in self.stage.tasks})
        written = PairFile(output, Target(self.args.target))
        written.write(log, collected)
        self.dropped = collected.dropped
        written.counts["forks"] = self.forked
        note_pairs(store, log, (pair for pair in collected.pairs if pair.confidence is not None))
        settings = {name: value for name, value in sorted(vars(self.args).items()) if not isinstance(value, Path)}
        card = written.card(log, collected.dropped, command_line("prefs", self.argv), settings)
        write_card(card, output)
        return written

    def _say(self, written: PairFile, output: Path, directory: Path) -> None:
        played = ", ".join(f"{count} {name}" for name, count in sorted(self.rollouts.items())) or "none"
        print(f"rollouts played: {played}")
        kinds = ", ".join(f"{count} {name}" for name, count in sorted(written.counts["kinds"].items()))
        sources = ", ".join(f"{count} by {name}" for name, count in sorted(written.counts["sources"].items()))
        print(f"pairs: {written.rows}" + (f" ({kinds}; {sources})" if written.rows else ""))
        left_out = ", ".join(f"{count} {why}" for why, count in sorted(self.dropped.items()))
        print(f"left out: {left_out or 'none'}")
        if not written.rows:
            print(f"NO PAIRS: {_why_none(self.forked['states forked'])}")
        print(f"rows: {output}\nrecords: {records_path(output)}\ncard: {card_paths(output)[1]}\ntraces: {directory}")


def _why_none(forked: int) -> str:
    """What a run lacks that gave no pair."""
    if forked:
        return f"at none of the {forked} forked states did two actions differ enough (--margin, --min-confidence)"
    return "no state was forked, no message malformed beside a sound one, no loop (--temperature, --fork-at every)"


def _writable(path: Path) -> Path:
    """The path, once it is sure that files can be written there: better now than after the rollouts."""
    for each in (path, records_path(path), *card_paths(path)):
        refuse_run_file(each, "--out")
    with atomic_file(path.with_name(f".{path.name}.trial")):
        pass
    path.with_name(f".{path.name}.trial").unlink()
    return path
