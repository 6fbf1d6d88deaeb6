"""What is known of a model that is to be merged: its files, and every training run that made it what it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.model_files import RESULT_FILE, ModelFiles, find_model
from harness.training_history import TrainingRun, training_history


@dataclass(frozen=True)
class Source:
    """What is merged."""

    files: ModelFiles
    runs: tuple[TrainingRun, ...]
    """Oldest first; empty where no training run is recorded."""
    max_length: int | None
    """Tokens of the longest conversation that the last run took, where that is recorded."""


def find_source(name: str) -> Source:
    """What `--model` names: an adapter, or a training run with an adapter or a model of its own.

    Raises:
        UsageError: there is nothing to merge.
    """
    files = find_model(name)
    if files.adapter is None and not (Path(name) / RESULT_FILE).is_file():
        raise UsageError(f"--model {name}: nothing to merge: give a training run's directory, or an adapter's")
    runs = training_history(Path(name))
    length = runs[-1].settings.get("max_length") if runs else None
    return Source(files, runs, length if isinstance(length, int) else None)
