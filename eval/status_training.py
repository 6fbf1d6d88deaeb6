"""How a training goes: the step, its figures and the time left, from `train.json`, `metrics.jsonl` and the log of its
progress.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.status import Count, RunStatus, State, read_json, state_of, told
from eval.status_progress import ProgressReader
from harness.errors import UsageError
from harness.model_files import RESULT_FILE
from harness.progress_screens import span

TRAIN_FILE, METRICS_FILE = "train.json", "metrics.jsonl"
RECENT_STEPS = 20
"""The speed is that of so many steps."""
FIGURES = {"loss": "loss", "reward": "reward", "rollouts/solved": "solved", "rewards/accuracies": "pairs told apart"}
"""Of a step, as `metrics.jsonl` and as people call them."""


def is_training(path: Path) -> bool:
    return (path / TRAIN_FILE).is_file()


class TrainingWatch:
    """Looks at the directory of a training again and again. Raises UsageError where it is none."""

    def __init__(self, path: Path) -> None:
        self.path, self._progress = path, ProgressReader(path)
        record = read_json(path / TRAIN_FILE)
        settings = record.get("settings")
        if not isinstance(settings, dict):
            raise UsageError(f"{path / TRAIN_FILE} is not of a training on this machine")
        self._about = f"train {record.get('kind', '')} of {settings.get('model', '')}, seed {settings.get('seed', '')}"
        self._max_steps = settings.get("max_steps")

    def look(self, now: float) -> RunStatus:
        lines = [line for line in _lines(self.path / METRICS_FILE) if "loss" in line]
        result, session = read_json(self.path / RESULT_FILE), self._progress.read()
        state, said = state_of(session, now) if session else ("unknown", "no progress.jsonl: not known who trains it")
        figures = told(session, state, now) if session else {}
        state, said = self._with_result(state, said, result)
        counts = [each for each in figures.get("counts", ()) if each.what != "steps"]
        steps = self._steps(lines, next((each for each in figures.get("counts", ()) if each.what == "steps"), None))
        figures["counts"] = (steps if state == "running" else _unpaced(steps), *counts[-1:])
        return RunStatus(self.path, self._about, state, said, facts=_facts(lines), **figures)

    @staticmethod
    def _with_result(state: State, said: str, result: Mapping[str, Any]) -> tuple[State, str]:
        """The last step is not the end: the result is saved after it."""
        if result:
            return "ended", f"ended: {result.get('steps')} steps in {span(float(result.get('seconds') or 0))}"
        if state == "ended":
            return "stopped", f"{said}, and there is no {RESULT_FILE} (yet)"
        return state, said

    def _steps(self, lines: list[dict[str, Any]], logged: Count | None) -> Count:
        done = int(lines[-1]["step"]) if lines else 0
        total = logged.total if logged else self._max_steps
        return Count("steps", done, total, pace=_pace(lines[-RECENT_STEPS - 1 :], total))


def _unpaced(count: Count) -> Count:
    return Count(count.what, count.done, count.total)


def _pace(lines: list[dict[str, Any]], total: int | None) -> str:
    steps = int(lines[-1]["step"]) - int(lines[0]["step"]) if lines else 0
    if not steps:
        return "no rate yet"
    each = (float(lines[-1]["seconds"]) - float(lines[0]["seconds"])) / steps
    left = f", {span((total - int(lines[-1]['step'])) * each)} left" if total else ""
    return f"{each:.2g} s a step{left}"


def _facts(lines: list[dict[str, Any]]) -> tuple[str, ...]:
    if not lines:
        return ()
    said = [f"{name} {_latest(lines, key):.4g}" for key, name in FIGURES.items() if _latest(lines, key) is not None]
    return (f"step {lines[-1]['step']}: {', '.join(said)}",)


def _latest(lines: list[dict[str, Any]], key: str) -> Any:
    """A further step on the rollouts of a round has no rewards of its own: those of the last one that has."""
    return next((line[key] for line in reversed(lines) if line.get(key) is not None), None)


def _lines(path: Path) -> list[dict[str, Any]]:
    """The logged steps, without a torn last line and without what is no such line."""
    found = []
    for line in path.read_bytes().splitlines(keepends=True) if path.is_file() else []:
        if line.endswith(b"\n") and line.startswith(b'{"step"'):
            found.append(json.loads(line))
    return found
