"""What made a model what it is: every training run behind it, and the tasks that they were trained on.

A run that began with another run's model has a history: what that one was trained on is in the model too, so that a
card or a warning which told of the last run only would hide leaks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from harness.errors import UsageError
from harness.model_files import RESULT_FILE, find_model, read_result
from harness.records import Record

HISTORY_FILE = "training.json"
"""In a merged model's directory: the runs that made it, for the card of a model that is trained from it."""
TRAIN_FILE, METRICS_FILE = "train.json", "metrics.jsonl"
NOT_KNOWN = "What it was trained on is not known: whether tasks of a test split are in it cannot be said."
ADAPTER_FILE = "adapter_config.json"
COPY_MARK = "~"
"""What stands in a task's id between the id that it is a copy of and the copy's number."""
_SHOWN = 5


class TrainingRun(Record):
    """One training run, as far as it is recorded; nothing in it names a place on a machine."""

    kind: str = ""
    """sft, dpo or grpo."""
    data: str = ""
    """Name of the file of rows."""
    data_sha256: str = ""
    data_card: str = ""
    """Name of its card."""
    settings: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    results: dict[str, str | int | float | None] = Field(default_factory=dict)
    """Rows, steps, losses and so on."""
    versions: dict[str, str] = Field(default_factory=dict)
    protocols: tuple[str, ...] = ()
    """Of the rollouts that the rows come from."""
    suites: tuple[str, ...] = ()
    leakage: tuple[str, ...] = (NOT_KNOWN,)
    tasks: tuple[str, ...] | None = ()
    """That it was trained on, copies under the id of what they are copies of; None where that is not known."""


def training_history(path: Path) -> tuple[TrainingRun, ...]:
    """The runs that made the model at a path, oldest first; empty for a name on the hub, or where none is recorded.

    Raises:
        UsageError: a record cannot be read.
    """
    return tuple(_history(path, set()))


def trained_notices(model: str, tasks: Iterable[str]) -> list[str]:
    """What is to be said before a model is measured on tasks: which of them it was trained on.

    Raises:
        UsageError: a record of its training cannot be read.
    """
    runs = training_history(Path(model)) if model else ()
    wanted = {_original(task) for task in tasks}
    seen = sorted(wanted & {task for run in runs for task in run.tasks or ()})
    notices = []
    if seen:
        some = ", ".join(seen[:_SHOWN]) + (", …" if len(seen) > _SHOWN else "")
        notices.append(
            f"WARNING: {model} was trained on {len(seen)} of these {len(wanted)} tasks ({some}): "
            "results on them say nothing about tasks that it has not seen"
        )
    if any(run.tasks is None for run in runs):
        notices.append(
            f"what {model} was trained on is recorded in part only: a data card is gone, changed, or names no tasks"
        )
    return notices


def _original(task: str) -> str:
    return task.split(COPY_MARK, maxsplit=1)[0]


def _history(path: Path, seen: set[Path]) -> Iterator[TrainingRun]:
    """The runs that made the model at a path, oldest first; a name on the hub has none."""
    if (path / HISTORY_FILE).is_file():
        yield from _read_history(path / HISTORY_FILE)
    elif run := _run_of(path):
        train = _read(run / TRAIN_FILE)
        before = _settings_of(train).get("model")
        if before and run not in seen:
            yield from _history(Path(str(before)), seen | {run})
        yield _training_run(run, train, ended=path.resolve() in (run, run / "adapter", run / "model"))
    elif (path / ADAPTER_FILE).is_file():
        yield from _history(Path(find_model(str(path)).base), seen)
        yield TrainingRun(tasks=None)
    elif path.is_absolute() and not path.exists():
        yield TrainingRun(tasks=None)


def _run_of(path: Path) -> Path | None:
    """The directory of the run whose model, adapter or checkpoint lies at a path."""
    places = (path.resolve(), *path.resolve().parents[:2]) if path.is_dir() else ()
    return next((place for place in places if (place / TRAIN_FILE).is_file()), None)


def _read_history(path: Path) -> tuple[TrainingRun, ...]:
    try:
        return TypeAdapter(tuple[TrainingRun, ...]).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise UsageError(f"{path} cannot be read") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read") from error
    if not isinstance(found, dict):
        raise UsageError(f"{path} cannot be read")
    return found


def _settings_of(train: Mapping[str, Any]) -> dict[str, Any]:
    found = train.get("settings")
    return found if isinstance(found, dict) else {}


def _training_run(run: Path, train: Mapping[str, Any], ended: bool) -> TrainingRun:
    """Args: ended: its result is meant, no checkpoint of it."""
    settings = _settings_of(train)
    result = read_result(run) if ended and (run / RESULT_FILE).is_file() else {}
    data = train.get("data") or {}
    reference = data.get("card") or {}
    return TrainingRun(
        kind=str(settings.get("kind") or result.get("kind", "")),
        data=Path(str(data.get("path", ""))).name,
        data_sha256=str(data.get("sha256", "")),
        data_card=Path(str(reference.get("path", ""))).name,
        settings=_plain(settings),
        results=_results(result, data) | (_logged(run / METRICS_FILE) if ended else {}),
        versions={name: str(value) for name, value in (train.get("versions") or {}).items()},
        **({"tasks": _originals(settings["tasks"])} if "tasks" in settings else _of_card(reference)),
    )


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is a path, or no single value."""
    kept = {key: value for key, value in values.items() if value is None or isinstance(value, str | int | float)}
    return {key: value for key, value in kept.items() if key != "model" and not str(value).startswith("/")}


def _results(result: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    names = ("steps", "tokens", "seconds", "final_loss")
    rows = {name: data[name] for name in ("rows", "dropped_over_length") if name in data}
    return rows | {name: result[name] for name in names if name in result}


def _logged(metrics: Path) -> dict[str, float]:
    losses = list(_losses(metrics))
    return {"first_logged_loss": losses[0], "last_logged_loss": losses[-1]} if losses else {}


def _losses(metrics: Path) -> Iterator[float]:
    if metrics.is_file():
        for line in metrics.read_text(encoding="utf-8").splitlines():
            try:
                loss = json.loads(line).get("loss")
            except ValueError:  # a torn last line
                continue
            if isinstance(loss, int | float):
                yield loss


def _of_card(reference: Mapping[str, Any]) -> dict[str, Any]:
    """What the data card says of leaks and of where the rows come from; it must still be the card of then."""
    path = Path(str(reference.get("path", "")))
    try:
        content = path.read_bytes()
    except OSError:
        return {"tasks": None}
    if hashlib.sha256(content).hexdigest() != reference.get("sha256"):
        said = f"The data card {path.name} is not what it was at the training. {NOT_KNOWN}"
        return {"leakage": (said,), "tasks": None}
    card = json.loads(content)
    counts = card.get("counts") or {}
    runs = [source.get("run") or {} for source in card.get("sources", ())]
    return {
        "leakage": tuple(card.get("leakage") or (NOT_KNOWN,)),
        "protocols": tuple(sorted({str(run["tool_protocol"]) for run in runs if run.get("tool_protocol")})),
        "suites": tuple(sorted({str(run["suite"]) for run in runs if run.get("suite")})),
        "tasks": _originals(counts.get("rows by task", counts.get("tasks"))),
    }


def _originals(tasks: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if tasks is None else tuple(sorted(set(map(_original, tasks))))
