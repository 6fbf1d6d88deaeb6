"""`repo-agent sft-extract`: from trace logs to an SFT file, with a card beside it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from harness.cli import Parser, add_sandbox_flags, add_suite_flags, at_least
from harness.errors import UsageError
from harness.run_files import refuse_run_file
from harness.trace_store import TRACES, TraceStore
from harness.versions import versions
from sandboxes.base import Isolation
from sandboxes.verdict_cache import CachedBackend, verdict_directory
from suites.base import load
from suites.fetch import mirror_directory
from suites.opening import open_for, prepared
from trainers.card import Card, Source, atomic_file, card_paths, command_line, leakage_words, token_figures, write_card
from trainers.extract import Drop, Rules
from trainers.formats import Granularity, Target
from trainers.sft_rows import RowShape, SftExtraction, Tally
from trainers.solving_path import PathFinder, SolvingPath, SuiteTable, play_paths
from trainers.token_counts import token_counter
from trainers.trace_sources import PATHS_SUFFIX, Entry, TraceSources, find_logs

COMMAND = "sft-extract"
_SHOWN_TASKS = 8
_FORMATS = {
    (Granularity.STEP, False): "Each row is one step: the last message is trained (weight 1), its context is not.",
    (Granularity.STEP, True): "Each row is one step: the completion is trained, the prompt is its context.",
    (Granularity.TRAJECTORY, False): "Each row is a whole conversation; the messages of weight 1 are trained.",
    (Granularity.TRAJECTORY, True): "Each row is a whole conversation; train with assistant_only_loss.",
}
_RULES = (
    "Never trained: a message that is not strictly one protocol object. It may stand in a context.",
    "A step that repeats what its loop did before is not trained.",
    "Of a rollout that is not solved, no step after the last one that raised the number of passing tests is trained; "
    "without such a step, none from its first write on.",
    "Rows with the same messages are kept once.",
)
_PATH_RULE = (
    "Solving paths: of each solved rollout the steps that its final patch needed were played again as a rollout of "
    "their own; rows are made of those that scored 1. The last source is their log."
)


def parser() -> argparse.ArgumentParser:
    made = Parser(prog=f"repo-agent {COMMAND}", description="Make an SFT file of trace logs, with a card beside it.")
    made.add_argument(
        "--trace-dir",
        type=Path,
        action="append",
        required=True,
        help=f"run directory, {TRACES}, or a directory with run directories below; may be given several times",
    )
    made.add_argument("--output", type=Path, required=True, help="JSONL file to write")
    _add_filters(made)
    _add_shape(made)
    _add_split_flags(made)
    _add_path_flags(made)
    return made


def _add_filters(made: argparse.ArgumentParser) -> None:
    yes_no = argparse.BooleanOptionalAction
    made.add_argument(
        "--require-success", action=yes_no, default=True, help="only rollouts whose score is 1 (default: on)"
    )
    made.add_argument(
        "--require-valid-tool-ok",
        action=yes_no,
        default=True,
        help="only steps whose call parsed strictly and gave no error (default: on; off, calls that parsed strictly)",
    )
    made.add_argument(
        "--improving-only", action="store_true", help="of the writes only those that raised the number of passing tests"
    )
    made.add_argument("--suite-version", help="scores by this version of the suite (default: the run's own)")
    made.add_argument("--limit-per-task", type=at_least(1), help="at most so many rows of a task, the first ones")


def _add_shape(made: argparse.ArgumentParser) -> None:
    made.add_argument("--format", choices=["json"], default="json", help="the target is the JSON tool-call object")
    made.add_argument("--granularity", choices=[str(item) for item in Granularity], default=str(Granularity.STEP))
    made.add_argument(
        "--target", choices=[str(item) for item in Target], default=str(Target.TOGETHER), help="who trains on it"
    )
    made.add_argument("--max-tokens", type=at_least(1), help="leave out rows that are longer (none is ever cut)")
    made.add_argument(
        "--tokenizer", help="counts the tokens: tokenizer.json, directory or hub name (default: characters / 4)"
    )


def _add_split_flags(made: argparse.ArgumentParser) -> None:
    either = made.add_mutually_exclusive_group()
    either.add_argument("--skip-test-split", action="store_true", help="leave rollouts of the test split out")
    either.add_argument("--allow-test-split", action="store_true", help="take rollouts of the test split too")
    made.add_argument(
        "--test-suite", action="append", default=[], help="suite file whose tasks count as the test split too"
    )


def _add_path_flags(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--solving-path",
        action="store_true",
        help="of each solved rollout the steps that its patch needed, played again; the flags below are for this "
        "(and --mirror for --test-suite)",
    )
    made.add_argument("--suite", help="suite name or file that the rollouts are of (default: as their traces say)")
    add_suite_flags(made)
    add_sandbox_flags(made)


def main(argv: Sequence[str]) -> int:
    """Run the command: 0, also where nothing became a row, which is said. Raises UsageError for bad input."""
    args = parser().parse_args(argv)
    rules = Rules(args.require_success, args.require_valid_tool_ok, args.improving_only, args.suite_version)
    shape = RowShape(Target(args.target), Granularity(args.granularity), args.max_tokens, args.limit_per_task)
    counter = token_counter(args.tokenizer)
    logs = find_logs(args.trace_dir)
    _check_output(args.output, logs)
    with TraceSources(logs) as sources:
        for notice in sources.notices:
            print(f"repo-agent: {notice}", file=sys.stderr)
        entries, test_tasks = _guarded(sources.entries, args)
        extraction = SftExtraction(shape, counter)
        extraction.tally.drop("rollouts", Drop.TEST_SPLIT, len(sources.entries) - len(entries))
        material = Material(sources, entries, rules)
        with atomic_file(args.output) as file, _solving(args, material, extraction.tally) as chosen:
            file.writelines(extraction.lines(chosen.sources.traces(chosen.entries), chosen.rules))
            abouts = sources.about() + (chosen.sources.about() if args.solving_path else ())
    leakage = leakage_words(extraction.tally.by_split, test_tasks & set(extraction.tally.by_task))
    card = _card(args, argv, extraction.tally, abouts, leakage, counter.about)
    write_card(card, args.output)
    for line in _summary(args.output, extraction.tally, card):
        print(line)
    return 0


def _check_output(output: Path, logs: Sequence[Path]) -> None:
    refuse_run_file(output, "--output")
    if output.resolve() in {log.resolve() for log in logs}:
        raise UsageError(f"--output {output} would overwrite a trace log: choose another name")
    if (output.with_name(output.stem + PATHS_SUFFIX) / TRACES).resolve() in {log.resolve() for log in logs}:
        raise UsageError(f"--output {output} would overwrite the solving paths that are read: choose another name")


def _guarded(entries: Sequence[Entry], args: argparse.Namespace) -> tuple[list[Entry], set[str]]:
    """The entries that may be read, and the tasks of the test split among all."""
    mirror = mirror_directory(args.mirror)
    also = {task.id for suite in args.test_suite for task in load(suite, mirror).tasks()}
    tested = {entry.task for entry in entries if entry.split == "test" or entry.task in also}
    if tested and not (args.skip_test_split or args.allow_test_split):
        shown = ", ".join(sorted(tested)[:_SHOWN_TASKS]) + (", …" if len(tested) > _SHOWN_TASKS else "")
        raise UsageError(
            f"the traces hold rollouts of {len(tested)} tasks of the test split ({shown}): leave them out with "
            "--skip-test-split, or force it with --allow-test-split"
        )
    return [entry for entry in entries if not (args.skip_test_split and entry.task in tested)], tested


@dataclass(frozen=True)
class Material:
    """What rows are made of, and by which rules."""

    sources: TraceSources
    entries: list[Entry]
    rules: Rules


@contextmanager
def _solving(args: argparse.Namespace, material: Material, tally: Tally) -> Iterator[Material]:
    """The material itself; with --solving-path what was played anew of it, graded by the suite as it is now."""
    if not args.solving_path:
        yield material
        return
    finder = PathFinder(material.rules, SuiteTable(args.suite, mirror_directory(args.mirror)))
    paths = list(finder.paths(material.sources.traces(material.entries)))
    directory = args.output.with_name(args.output.stem + PATHS_SUFFIX)
    played = _played(args, paths, directory)
    for why in (*finder.dropped, *filter(None, played.values())):
        tally.drop("rollouts", why)
    with TraceSources([directory / TRACES]) as read:
        sound = [entry for entry in read.entries if played[entry.rollout] is None]
        yield Material(read, sound, replace(material.rules, suite_version=None))


def _played(args: argparse.Namespace, paths: Sequence[SolvingPath], directory: Path) -> dict[str, Drop | None]:
    """Play the paths into a run directory of their own; by rollout why it does not count."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / TRACES).unlink(missing_ok=True)
    with TraceStore(directory) as store:
        if not paths:
            return {}
        tasks, left_out = [path.task for path in paths], []
        for suite in {id(path.suite): path.suite for path in paths}.values():
            left_out += prepared(suite, [path.task for path in paths if path.suite is suite], args.num_workers)[1]
        isolation = Isolation(args.isolation)
        backend, notices = open_for(tasks, args.sandbox, args.base_image, False, isolation, args.num_workers)
        for line in (*left_out, f"{len(paths)} solving paths are played in sandbox {backend.name}", *notices):
            print(f"repo-agent: {line}", file=sys.stderr)
        with closing(CachedBackend(backend, verdict_directory())) as cached:
            return dict(play_paths(paths, store, cached, args.num_workers))


def _card(
    args: argparse.Namespace,
    argv: Sequence[str],
    tally: Tally,
    sources: tuple[Source, ...],
    leakage: tuple[str, ...],
    counted: str,
) -> Card:
    settings = {key: _plain(value) for key, value in sorted(vars(args).items())}
    return Card(
        file=args.output.name,
        rows=tally.rows,
        format=_FORMATS[Granularity(args.granularity), args.target == Target.TRL],
        command=command_line(COMMAND, argv),
        settings=settings,
        rules=(*_RULES, *([_PATH_RULE] if args.solving_path else [])),
        leakage=leakage,
        counts={name: dict(sorted(counter.items())) for name, counter in tally.counts.items()},
        tokens=token_figures(tally.tokens, counted),
        dropped={unit: {str(why): count for why, count in reasons.items()} for unit, reasons in tally.dropped.items()},
        sources=sources,
        versions=versions(),
    )


def _plain(value: object) -> object:
    if isinstance(value, list):
        return [str(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _summary(output: Path, tally: Tally, card: Card) -> Iterator[str]:
    rows = f"{tally.rows} rows of {len(tally.by_task)} tasks" if tally.rows else "NO ROWS: nothing passed the filters"
    yield f"{rows}: {output}"
    for unit, reasons in card.dropped.items():
        if reasons:
            said = ", ".join(f"{count} {why}" for why, count in reasons.items())
            yield f"{unit} left out: {said}"
    if not tally.rows and not any(card.dropped.values()):
        yield "the traces hold no rollout with a step"
    yield from card.leakage[:1] if card.leakage[0].startswith("WARNING") else ()
    yield f"card: {card_paths(output)[1]}"
