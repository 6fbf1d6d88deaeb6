"""The runs that a comparison is made of: read from run directories, from sets of them, or from reports."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from eval.metrics import RolloutMetrics, measure
from eval.report import REPORT_FORMAT, Report
from harness.errors import UsageError
from harness.records import StopReason, Trace
from harness.run_files import REPORT_FILE, RUN_FILE, Origin, RunConfig, read_config, read_origin, read_run_file
from harness.trace_reader import TraceLog
from harness.trace_store import TRACES

CUT_OFF = (None, StopReason.ERROR, StopReason.INTERRUPTED)
"""What the infrastructure or an interruption left of a rollout says nothing about the policy."""


@dataclass(frozen=True)
class PlayedRun:
    """One run, as it is compared."""

    path: Path
    config: RunConfig
    rollouts: tuple[RolloutMetrics, ...]
    """Those from a task's start."""
    forks: int = 0
    """How many more were forked from them, and are not compared."""
    versions: Mapping[str, str] = field(default_factory=dict)
    image: str = ""
    origin: Origin | None = None
    asked: Mapping[str, str] = field(default_factory=dict)
    """By task a digest of its goal and its expected tests; empty where only a report is left."""

    @property
    def name(self) -> str:
        return self.path.parent.name if self.path.suffix == ".json" else self.path.resolve().name

    @property
    def suite(self) -> str:
        """The suite, whichever part of it was played."""
        return self.origin.whole_suite if self.origin else re.split(r"[:+]", self.config.suite)[0]

    def same_suite(self, other: PlayedRun) -> bool:
        return self.suite == other.suite or self.config.suite_version == other.config.suite_version


def read_runs(path: Path) -> list[PlayedRun]:
    """The runs at a path: a run directory, a directory that holds some one or two levels down, or a report.

    Raises:
        UsageError: there is none, or one cannot be read or holds no rollout.
    """
    if path.is_file():
        return [_of_report(path)]
    if not path.is_dir():
        raise UsageError(f"{path}: no such run directory or report")
    directories = [path] if _is_run(path) else list(_runs_under(path))
    if not directories:
        raise UsageError(f"{path} is no run directory, and holds none one or two levels down")
    return [_of_directory(each) for each in directories]


def _is_run(path: Path) -> bool:
    return (path / RUN_FILE).is_file() or (path / REPORT_FILE).is_file()


def _runs_under(path: Path) -> Iterator[Path]:
    for child in sorted(each for each in path.iterdir() if each.is_dir()):
        if _is_run(child):
            yield child
        else:
            yield from sorted(each for each in child.iterdir() if each.is_dir() and _is_run(each))


def _of_directory(path: Path) -> PlayedRun:
    """From the log, which has what came after the report too; from the report where there is no log."""
    if not (path / TRACES).is_file():
        return _of_report(path / REPORT_FILE)
    config, about = read_config(path), read_run_file(path)
    rollouts: list[RolloutMetrics] = []
    asked: dict[str, str] = {}
    forks = 0
    with TraceLog(path) as log:
        for trace in log:
            if trace.header.fork:
                forks += 1
                continue
            rollouts.append(measure(trace.model_copy(update={"score": trace.grade()})))
            asked.setdefault(trace.header.task, _asked(trace))
    image = str((about.get("sandbox") or {}).get("image_id", ""))
    versions = about.get("versions") or {}
    return _checked(PlayedRun(path, config, tuple(rollouts), forks, versions, image, read_origin(path), asked))


def _asked(trace: Trace) -> str:
    goal = trace.header.prompt[-1].content if trace.header.prompt else ""
    return hashlib.sha256(json.dumps([goal, trace.header.expected_tests]).encode()).hexdigest()


def _of_report(path: Path) -> PlayedRun:
    try:
        report = Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path.parent} holds neither traces nor a report: {error.strerror}") from error
    except ValidationError as error:
        raise UsageError(f"{path} is not a report of this version") from error
    if report.format != REPORT_FORMAT:
        raise UsageError(f"{path} is a report of format {report.format}, not {REPORT_FORMAT}")
    image = str(report.sandbox.get("image_id", ""))
    return _checked(PlayedRun(path, report.config, report.rollouts, 0, report.versions, image, report.origin))


def _checked(run: PlayedRun) -> PlayedRun:
    if not run.rollouts:
        raise UsageError(f"{run.path} has no rollout to compare")
    return run


# ---- arms: runs that are one thing


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: a run, several seeds of it, or the folds of one suite."""

    name: str
    runs: tuple[PlayedRun, ...]

    @property
    def first(self) -> PlayedRun:
        return self.runs[0]

    @property
    def tested(self) -> bool:
        return all(run.config.test_policy != "never" for run in self.runs)

    @property
    def counted(self) -> dict[str, list[RolloutMetrics]]:
        """By task the rollouts that count: those with a score; where no test was run, those that ended."""
        found: dict[str, list[RolloutMetrics]] = {}
        for rollout in (each for run in self.runs for each in run.rollouts):
            if rollout.solved is not None if self.tested else rollout.stop not in CUT_OFF:
                found.setdefault(rollout.task, []).append(rollout)
        return found

    @property
    def played(self) -> int:
        return sum(len(run.rollouts) for run in self.runs)

    @property
    def planned(self) -> int:
        return sum(len(run.config.tasks) * run.config.rollouts for run in self.runs)


def arms_of(paths: Sequence[Path]) -> list[Arm]:
    """The arms that are named: runs that differ in their seed alone are one, and so are the folds of one directory.

    A directory of runs is taken apart by itself. Run directories that are named one by one are pooled only where that
    leaves something to compare.

    Raises:
        UsageError: see `read_runs`.
    """
    sets = [(path, read_runs(path)) for path in paths]
    single = [runs[0] for _, runs in sets if len(runs) == 1]
    pooled = _of_seeds(single, code_too=True)
    several = len(pooled) + len(sets) - len(single) > 1
    found: list[tuple[str, list[PlayedRun]]] = []
    for path, runs in sets:
        if len(runs) > 1:
            groups = _of_folds(_of_seeds(runs))
            found += [(path.resolve().name if len(groups) == 1 else _label(each), each) for each in groups]
        elif not several:
            found.append((runs[0].name, runs))
        elif group := next((each for each in pooled if each[0] is runs[0]), None):
            found.append((runs[0].name if len(group) == 1 else _label(group), group))
    return _named(found)


def _of_seeds(runs: Sequence[PlayedRun], code_too: bool = False) -> list[list[PlayedRun]]:
    """Groups of the same settings, played with other seeds or on other tasks; a repetition begins a group of its own.

    Args:
        code_too: the runs of a group are also of one commit.
    """
    groups: list[list[PlayedRun]] = []
    for run in runs:
        key = (_settings(run), run.versions.get("commit") if code_too else "")
        for group in groups:
            its = (_settings(group[0]), group[0].versions.get("commit") if code_too else "")
            if its == key and not any(_clash(run, each) for each in group):
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


def _settings(run: PlayedRun, model_too: bool = True) -> str:
    left_out = {"seed", "tasks", "suite", "suite_version"} | (set() if model_too else {"model"})
    settings = run.config.model_dump(mode="json", exclude=left_out)
    if not model_too:
        settings["extra"].pop("model_sha256", None)
    return json.dumps(settings, sort_keys=True)


def _clash(one: PlayedRun, other: PlayedRun) -> bool:
    """They are no two seeds of one thing: a repetition, another suite, or another version of the tasks."""
    same_tasks = bool(set(one.config.tasks) & set(other.config.tasks))
    other_version = one.config.suite_version != other.config.suite_version
    return not one.same_suite(other) or (same_tasks and (one.config.seed == other.config.seed or other_version))


def _of_folds(groups: list[list[PlayedRun]]) -> list[list[PlayedRun]]:
    """Each fold has a model of its own: groups of one directory that share no task and all settings but the model."""
    together: dict[tuple[Path, str], list[list[PlayedRun]]] = {}
    for group in groups:
        together.setdefault((group[0].path.parent, _settings(group[0], model_too=False)), []).append(group)
    found: list[list[PlayedRun]] = []
    for folds in together.values():
        tasks = [task for group in folds for task in {task for run in group for task in run.config.tasks}]
        alike = len(tasks) == len(set(tasks)) and all(group[0].same_suite(folds[0][0]) for group in folds)
        found += [[run for group in folds for run in group]] if alike else folds
    return found


def _label(runs: Sequence[PlayedRun]) -> str:
    """The model, or what speaks without one; the directory of folds."""
    models = {run.config.model for run in runs}
    if len(models) > 1:
        return runs[0].path.parent.resolve().name
    model = models.pop()
    return Path(model).name or model or runs[0].config.policy


def _named(found: Sequence[tuple[str, list[PlayedRun]]]) -> list[Arm]:
    """With names that differ: where they do not, the paths, and last a number."""
    names = [name for name, _ in found]
    wanted = [name if names.count(name) == 1 else str(runs[0].path) for name, runs in found]
    counts = [wanted[: place + 1].count(name) for place, name in enumerate(wanted)]
    named = [name if count == 1 else f"{name} ({count})" for name, count in zip(wanted, counts, strict=True)]
    return [Arm(name, tuple(runs)) for name, (_, runs) in zip(named, found, strict=True)]
