"""What a run directory holds beside its traces: the configuration, which decides whether a run may be continued."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field, JsonValue, ValidationError

from harness.errors import UsageError
from harness.records import Record, TestPolicy
from harness.redaction import Redactor
from harness.trace_store import TRACES
from sandboxes.base import Isolation

RUN_FILE, REPORT_FILE = "run.json", "report.json"
_SHOWN_CHARS = 60


class RunConfig(Record):
    """What decides the results of a run. Two runs with equal configurations may be compared or continued."""

    suite: str
    suite_version: str
    tasks: tuple[str, ...]
    policy: str
    model: str
    oracle: bool
    test_policy: TestPolicy
    tool_protocol: str
    sandbox: str
    isolation: Isolation
    max_iters: int
    rollouts: int
    seed: int
    temperature: float
    max_tokens: int
    stop_on_loop: bool
    extra: dict[str, str | int | float] = Field(default_factory=dict)
    """Settings of the command that played it beyond these."""


class Origin(Record):
    """What beside its configuration is needed to play a run again, and to say what has changed since."""

    command: str
    """The one that played it."""
    flags: dict[str, JsonValue]
    """As they were given, or their defaults; without those that say where files go, or that a run is resumed."""
    whole_suite: str
    """The suite that a suite file takes its tasks from; the suite itself where it is whole."""
    prompts_sha256: str
    """Of the first messages of all tasks."""


def claim_directory(directory: Path, config: RunConfig, about: dict[str, object], resume: bool = False) -> bool:
    """Make a run directory and write `run.json`, or take up the run that is there; whether one was taken up.

    Args:
        resume: continue the run of this configuration that the directory holds; where it holds none, one is begun.

    Raises:
        UsageError: the directory cannot be used, or holds a run already; how its configuration differs is named.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if (directory / RUN_FILE).exists():
            there = _content(directory)
            _refuse_other(directory, there["config"], config.model_dump(mode="json"))
            if not resume:
                raise UsageError(f"{directory} already holds a run of this configuration: say --resume to continue it")
            _write(directory, {**there, "resumed": [*there.get("resumed", []), {"time": now(), **about}]})
            return True
        if (directory / TRACES).exists():
            raise UsageError(f"{directory} holds traces of another program or version: choose another --trace-dir")
        _write(directory, {"config": config.model_dump(mode="json"), **about})
    except OSError as error:
        raise UsageError(f"cannot use trace directory {directory}: {error.strerror}") from error
    return False


def refuse_run_file(path: Path, flag: str) -> None:
    """Raises UsageError for an output that would overwrite a file of a run."""
    if path.name in (RUN_FILE, TRACES):
        raise UsageError(f"{flag} {path} would overwrite a run's own file")
    if path.is_dir():
        raise UsageError(f"{flag} {path} is a directory")


def _write(directory: Path, content: dict[str, Any]) -> None:
    """In one move: a run that is killed here must find a whole file when it is resumed."""
    new = directory / f"{RUN_FILE}.new"
    new.write_text(Redactor()(json.dumps(content, indent=2)) + "\n", encoding="utf-8")
    new.replace(directory / RUN_FILE)


def _content(directory: Path, remedy: str = ": choose another --trace-dir") -> dict[str, Any]:
    try:
        found = json.loads((directory / RUN_FILE).read_text(encoding="utf-8"))
        if isinstance(found, dict) and isinstance(found["config"], dict):
            return found
    except (ValueError, KeyError, RecursionError):
        pass
    raise UsageError(f"{directory} holds a {RUN_FILE} that cannot be read{remedy}")


def _refuse_other(directory: Path, there: dict[str, Any], ours: dict[str, Any]) -> None:
    there, ours = ({**some, **(some.get("extra") or {}), "extra": None} for some in (there, ours))
    if said := differences(there, ours):
        raise UsageError(f"{directory} belongs to another configuration ({said}): choose another --trace-dir")


def differences(there: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """In words what two configurations do not share; empty where they are equal."""
    different = sorted(key for key in {*there, *ours} if there.get(key) != ours.get(key))
    return "; ".join(f"{key}: {_shown(there.get(key))} there, {_shown(ours.get(key))} here" for key in different)


NOTHING_TO_RESUME = "there is no run to resume: a new one begins"


def now() -> str:
    """The time, in the form that records have."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def read_run_file(directory: Path) -> dict[str, Any]:
    """All of `run.json`. Raises UsageError where there is none, or none that can be read."""
    if not (directory / RUN_FILE).is_file():
        raise UsageError(f"{directory} is no run directory: it has no {RUN_FILE}")
    return _content(directory, "")


def read_origin(directory: Path) -> Origin | None:
    """What is known beside the configuration; None for a run of another command, or of an earlier version."""
    try:
        return Origin.model_validate(read_run_file(directory).get("origin"))
    except ValidationError:
        return None


def read_config(directory: Path) -> RunConfig:
    """The configuration of a run. Raises UsageError where there is none, or none of this version."""
    if not (directory / RUN_FILE).is_file():
        raise UsageError(f"{directory} is no run directory: it has no {RUN_FILE}")
    try:
        return RunConfig.model_validate(_content(directory)["config"])
    except (ValidationError, OSError) as error:
        raise UsageError(f"{directory / RUN_FILE} is not a configuration of this version") from error
