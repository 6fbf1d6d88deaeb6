"""Which run directories a command line means: a run itself, or every run one or two levels under a directory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.run_files import REPORT_FILE, RUN_FILE, RunConfig, read_config, read_run_file
from harness.trace_store import TRACES

_LEVELS = ("*", "*/*")


@dataclass(frozen=True)
class RunSource:
    """One run directory, under a name that no other of the page has."""

    name: str
    directory: Path
    config: RunConfig
    about: dict[str, object]
    """What else `run.json` says: versions, sandbox, notices, when it began."""
    wall_seconds: float | None
    """From the run's report; None where it has none."""


def run_sources(paths: Sequence[Path]) -> list[RunSource]:
    """The runs that are meant, each once, in the order given (those of a set by name).

    Raises:
        UsageError: a path is no run and has none under it, or a run's configuration cannot be read.
    """
    directories = list(dict.fromkeys(found.resolve() for path in paths for found in _runs(path)))
    names = _names(directories)
    return [_source(name, directory) for name, directory in zip(names, directories, strict=True)]


def _runs(path: Path) -> list[Path]:
    if not path.is_dir():
        raise UsageError(f"{path} is no run directory")
    if _is_run(path):
        return [path]
    for level in _LEVELS:
        if found := sorted(each for each in path.glob(level) if _is_run(each)):
            return found
    raise UsageError(
        f"{path} is no run directory ({RUN_FILE} and {TRACES}), and there is none one or two levels under it"
    )


def _is_run(path: Path) -> bool:
    return (path / RUN_FILE).is_file() and (path / TRACES).is_file()


def _names(directories: Sequence[Path]) -> list[str]:
    """The last part of each path, and as many of those before it as tell them apart; fit to be written as UTF-8."""
    for parts in range(1, max((len(each.parts) for each in directories), default=1) + 1):
        names = ["/".join(each.parts[-parts:]).encode(errors="replace").decode() for each in directories]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("directories are given once each")


def _source(name: str, directory: Path) -> RunSource:
    config = read_config(directory)
    about = {name: value for name, value in read_run_file(directory).items() if name != "config"}
    return RunSource(name, directory, config, about, _wall_seconds(directory / REPORT_FILE))


def _wall_seconds(report: Path) -> float | None:
    try:
        found = json.loads(report.read_text(encoding="utf-8"))["wall_seconds"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return float(found) if isinstance(found, int | float) else None
