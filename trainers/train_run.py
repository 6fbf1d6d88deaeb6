"""The directory of a training run, which is what is left of it.

    train.json      command, settings, versions, device, data: written before the first step
    metrics.jsonl   a line per optimizer step, appended when it ends
    progress.jsonl  who trains, and what goes on between two steps, for `repo-agent status`
    checkpoints/    the last two, with optimizer and random state
    adapter/        (or model/) the result, with tokenizer and chat template
    result.json     written last: a run with it has ended

A run is continued with equal settings only, from its last complete checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.model_files import RESULT_FILE, read_result
from harness.records import Record
from harness.redaction import Redactor
from harness.run_files import differences
from harness.versions import versions
from trainers.card import atomic_file, card_reference
from trainers.train_rows import TrainRows

TRAIN_FILE, METRICS_FILE = "train.json", "metrics.jsonl"
_COMPLETE = "complete"
"""A file in a checkpoint that has been written to its end."""
PREPARED = frozenset({"config.json", "rows.jsonl", "rows.card.json", "rows.card.md"})
"""What a pipeline (`trainers.gsm8k`) puts into the directory of a training before it begins."""
_LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate")


@dataclass(frozen=True)
class TrainRun:
    """One run directory."""

    path: Path
    result_name: str = ""
    """Where in it the result is saved; empty: adapter/, or model/ without LoRA."""

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / METRICS_FILE

    def record(self) -> dict[str, Any] | None:
        """What `train.json` holds, None where there is none. Raises UsageError if it cannot be read."""
        file = self.path / TRAIN_FILE
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(found, dict) and isinstance(found.get("settings"), dict):
                return found
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            pass
        raise UsageError(f"{file} cannot be read: choose another --output-dir")

    def claim(self, settings: Record, resume: bool) -> dict[str, Any] | None:
        """The record of the run that is to be continued, None where a new one may begin here.

        Raises:
            UsageError: the directory holds something else, a run that is not to be continued, or one with other
                settings, which are named.
        """
        there = self.record()
        if there is None:
            if self._holds_something_else():
                raise UsageError(f"{self.path} holds something else than a training run: choose another --output-dir")
            return None
        if not resume and self.last_checkpoint() is None and self.result() is None:
            return None  # it ended before there was anything to lose, for lack of memory perhaps
        _refuse_other(self.path, there["settings"], settings.model_dump(mode="json"))
        if not resume:
            what = "choose another --output-dir or --suffix" if self.result() else "say --resume to continue it"
            ended = ", and it has ended" if self.result() else ""
            raise UsageError(f"{self.path} already holds a run with these settings{ended}: {what}")
        return there

    def _holds_something_else(self) -> bool:
        if not self.path.is_dir():
            return self.path.exists()
        return bool({each.name for each in self.path.iterdir()} - PREPARED)

    def result(self) -> dict[str, Any] | None:
        """What the run made, None while it has not ended."""
        return read_result(self.path) if (self.path / RESULT_FILE).is_file() else None

    def write_record(self, content: Mapping[str, Any]) -> None:
        _write(self.path / TRAIN_FILE, content)

    def write_result(self, content: Mapping[str, Any]) -> None:
        self._drop_blank_cards()
        _write(self.path / RESULT_FILE, content)

    def _drop_blank_cards(self) -> None:
        """Model cards of TRL and PEFT: templates in which nothing is filled in. `train merge` writes a real one."""
        for place in ("checkpoints", "checkpoints/*", "adapter", "model"):
            for card in self.path.glob(f"{place}/README.md"):
                card.unlink()

    def last_checkpoint(self) -> Path | None:
        """The newest one that is complete: what was being written when a run was killed is none."""
        found = [path.parent for path in self.checkpoints.glob(f"checkpoint-*/{_COMPLETE}")]
        return max(found, key=_step_of, default=None)

    def mark_complete(self, step: int) -> None:
        self._drop_blank_cards()
        (self.checkpoints / f"checkpoint-{step}" / _COMPLETE).touch()

    def cut_metrics(self, step: int) -> dict[str, Any]:
        """Forget what came after a step; the last value of each figure that is left, none for step 0.

        Raises UsageError where lines are lost: the result tells of all steps.
        """
        lines = [line for line in self.metric_lines() if line["step"] <= step]
        if step and not any(line["step"] == step and "loss" in line for line in lines):
            raise UsageError(
                f"{self.metrics} has lost step {step}, which a checkpoint has: choose another --output-dir"
            )
        with atomic_file(self.metrics) as file:
            file.writelines(json.dumps(line).encode() + b"\n" for line in lines)
        return {name: value for line in lines for name, value in line.items()}

    def metric_lines(self) -> Iterator[dict[str, Any]]:
        """The logged steps in order, without a torn last line. Raises UsageError for what are no such lines."""
        lines = self.metrics.read_bytes().splitlines(keepends=True) if self.metrics.is_file() else []
        for number, line in enumerate(lines, 1):
            if line.endswith(b"\n"):
                yield _metric(line, f"{self.metrics}:{number}")


def _metric(line: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
        if isinstance(found, dict) and isinstance(found.get("step"), int):
            return found
    except ValueError:
        pass
    raise UsageError(f"{where} is no line of metrics: choose another --output-dir")


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_file(path) as file:
        file.write(Redactor()(json.dumps(content, indent=2)).encode() + b"\n")


def _refuse_other(path: Path, there: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    if said := differences(there, ours):
        raise UsageError(f"{path} belongs to a run with other settings ({said}): choose another --output-dir")


def data_record(rows: TrainRows, sha256: str) -> dict[str, Any]:
    """What `train.json` says of a file: its rows, and the card that tells where they come from."""
    card = card_reference(rows.path)
    return {
        "path": str(rows.path.resolve()),
        "sha256": sha256,
        "lines": rows.lines,
        "rows": len(rows.rows),
        "dropped_over_length": rows.dropped,
        "longest": rows.longest,
        "tokens": rows.tokens,
        "card": {"path": str(Path(card.path).resolve()), "sha256": card.sha256} if card else None,
    }


def library_versions() -> dict[str, str]:
    found = versions()
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found
