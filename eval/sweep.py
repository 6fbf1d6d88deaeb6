"""Sweeps: every model with every seed, one run after the other, in one directory that `compare` and `view` take.

    ROOT/sweep.json    models, seeds, and the flags that all runs share
    ROOT/NAME/         an ordinary run directory for each model and seed

All models are played with the first seed before the second one begins, so that a sweep which is cut short can be
compared.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue, ValidationError

from eval.compare import compared
from eval.compare_report import print_compared
from eval.compare_runs import CUT_OFF, arms_of
from eval.report import Report
from harness.errors import UsageError
from harness.progress import console, notice
from harness.records import Record, StopReason
from harness.redaction import Redactor
from harness.run_files import REPORT_FILE, RUN_FILE, differences
from suites.origin import flags_of
from suites.run_cli import EXIT_INTERRUPTED

SWEEP_FILE = "sweep.json"
SWEEP_FORMAT = 1
_FREE = frozenset(
    {
        "num_workers",
        "hf_batch_size",
        "device",
        "attempts",
        "request_timeout",
        "mirror",
        "api_base",
        "max_cost",
        "max_total_tokens",
        "no_verdict_cache",
    }
)
"""Flags that may be others when a sweep is taken up again: they decide no result."""


class SweptRun(Record):
    """One run of a sweep."""

    model: str
    seed: int


class Sweep(Record):
    """`sweep.json`."""

    format: int = SWEEP_FORMAT
    models: tuple[str, ...]
    """One that is empty where the policy needs none."""
    seeds: tuple[int, ...]
    flags: dict[str, JsonValue]
    """Those that all runs share."""
    runs: dict[str, SweptRun]
    """By the name of their directory, in the order in which they are played."""


def sweep_of(args: argparse.Namespace) -> Sweep:
    """What the flags ask for. Raises UsageError for a model that is named twice."""
    models = tuple(args.model) or ("",)
    if len(set(models)) < len(models):
        raise UsageError("--model names one model twice: --seeds plays it several times")
    seeds = tuple(range(args.seed, args.seed + args.seeds))
    names = _names(models, args.llm_provider)
    runs = {f"{names[model]}-seed{seed}": SweptRun(model=model, seed=seed) for seed in seeds for model in models}
    flags = {name: value for name, value in flags_of(args).items() if name not in ("model", "seed")}
    return Sweep(models=models, seeds=seeds, flags=flags, runs=runs)


def _names(models: tuple[str, ...], policy: str) -> dict[str, str]:
    """A file name for each, made of the end of its path or name."""
    found: dict[str, str] = {}
    for model in models:
        name = re.sub(r"[^\w.-]+", "_", Path(model).name or policy).strip(".") or "model"
        count = sum(re.fullmatch(rf"{re.escape(name)}(_\d+)?", other) is not None for other in found.values())
        found[model] = f"{name}_{count + 1}" if count else name
    return found


def play_sweep(args: argparse.Namespace, play: Callable[[argparse.Namespace], int]) -> int:
    """Play what lacks, and print how the models compare; the exit code is the highest of the runs'.

    Args:
        play: plays one run of these flags.

    Raises:
        UsageError: the directory holds something else.
    """
    if args.report:
        raise UsageError("--report is for one run: each run of a sweep has a report.json of its own")
    sweep = sweep_of(args)
    root = args.trace_dir or _new_directory(args)
    _claim(root, sweep, args.resume)
    code = 0
    for number, (name, run) in enumerate(sweep.runs.items(), 1):
        notice(f"run {number} of {len(sweep.runs)}: {name}{' is done' if is_done(root / name) else ''}")
        if not is_done(root / name):
            code = max(code, play(_flags_of_run(args, run, root / name)))
        if code == EXIT_INTERRUPTED:
            notice(f"the sweep goes on with --resume --trace-dir {root}")
            return code
    _print(root, sweep)
    return code


def _flags_of_run(args: argparse.Namespace, run: SweptRun, directory: Path) -> argparse.Namespace:
    resume = (directory / RUN_FILE).exists()
    changed = {"model": run.model, "seed": run.seed, "trace_dir": directory, "resume": resume, "seeds": 1}
    return argparse.Namespace(**{**vars(args), **changed})


def _new_directory(args: argparse.Namespace) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    name = re.sub(r"[^\w.-]", "_", f"{stamp}-{Path(args.suite).stem}-{args.llm_provider}-sweep")
    return Path("runs") / name


def _claim(root: Path, sweep: Sweep, resume: bool) -> None:
    """Make the directory, or take it up. Raises UsageError where it holds another sweep, or a run."""
    if (root / RUN_FILE).exists():
        raise UsageError(f"{root} holds a run, not a sweep: choose another --trace-dir")
    if (root / SWEEP_FILE).exists():
        _refuse_other(root, read_sweep(root), sweep)
        if not resume:
            raise UsageError(f"{root} already holds this sweep: say --resume to continue it")
    try:
        root.mkdir(parents=True, exist_ok=True)
        new = root / f"{SWEEP_FILE}.new"
        new.write_text(Redactor()(sweep.model_dump_json(indent=2)) + "\n", encoding="utf-8")
        new.replace(root / SWEEP_FILE)
    except OSError as error:
        raise UsageError(f"cannot use trace directory {root}: {error.strerror}") from error


def _refuse_other(root: Path, there: Sweep, ours: Sweep) -> None:
    """Models and seeds may be added, nothing else may change."""
    decide = [{name: each.flags[name] for name in each.flags if name not in _FREE} for each in (there, ours)]
    said = differences(*decide)
    if gone := [name for name, run in there.runs.items() if ours.runs.get(name) != run]:
        said = f"{', '.join(gone)} there, not here" + f"; {said}" * bool(said)
    if said:
        raise UsageError(f"{root} belongs to another sweep ({said}): choose another --trace-dir")


def read_sweep(root: Path) -> Sweep:
    """Raises UsageError for what is no sweep.json of this version."""
    try:
        return Sweep.model_validate_json((root / SWEEP_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise UsageError(f"{root / SWEEP_FILE} cannot be read: choose another --trace-dir") from error


def is_done(directory: Path) -> bool:
    """Nothing of the run is left to do, by its report; what a budget cut off can go on with a larger one."""
    try:
        report = Report.model_validate_json((directory / REPORT_FILE).read_bytes())
    except (OSError, ValidationError):
        return False
    left = (*CUT_OFF, StopReason.BUDGET)
    return not (report.interrupted or report.stopped or report.not_started) and not any(
        rollout.stop in left for rollout in report.rollouts
    )


def _print(root: Path, sweep: Sweep) -> None:
    notice(f"the sweep of {len(sweep.runs)} runs: {root}")
    try:
        print_compared(compared(arms_of([root])), console())
    except UsageError as error:
        notice(f"no comparison: {error}")
