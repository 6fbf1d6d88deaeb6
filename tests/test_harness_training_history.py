"""What a model was trained on is said before it is measured on it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import UsageError
from harness.training_history import trained_notices

TASKS = ("bitcount", "gcd", "sieve")


def trained(directory: Path, counts: dict[str, Any] | None, model: str = "", **settings: Any) -> Path:
    """What a training run leaves; `counts` None: rows without a data card."""
    directory.mkdir()
    data: dict[str, Any] = {"path": "rows.jsonl"}
    if counts is not None:
        card = directory / "rows.card.json"
        card.write_text(json.dumps({"counts": counts}))
        data["card"] = {"path": str(card), "sha256": hashlib.sha256(card.read_bytes()).hexdigest()}
    train = {"settings": {"kind": "sft", "model": model, **settings}, "data": data}
    (directory / "train.json").write_text(json.dumps(train))
    (directory / "result.json").write_text(json.dumps({"model": "model"}))
    (directory / "model").mkdir()
    return directory


@pytest.mark.parametrize("place", ["", "model", "checkpoints/step-1"])
def test_a_score_on_trained_tasks_is_announced(tmp_path: Path, place: str) -> None:
    run = trained(tmp_path / "sft", {"rows by task": {"gcd~0": 4, "gcd~1": 4, "wrap": 4}})
    (run / place).mkdir(parents=True, exist_ok=True)
    (said,) = trained_notices(str(run / place), TASKS)
    assert said.startswith(f"WARNING: {run / place} was trained on 1 of these 3 tasks (gcd): ")


def test_copies_that_are_played_count_once(tmp_path: Path) -> None:
    run = trained(tmp_path / "sft", {"tasks": {"gcd": 4}})
    (said,) = trained_notices(str(run), ["gcd~0", "gcd~1", "sieve~0"])
    assert "1 of these 2 tasks (gcd)" in said


def test_a_run_has_seen_what_the_run_before_it_has_seen(tmp_path: Path) -> None:
    first = trained(tmp_path / "sft", {"rows by task": {"gcd": 4}})
    second = trained(tmp_path / "grpo", None, str(first / "model"), tasks=["sieve"])
    (said,) = trained_notices(str(second), TASKS)
    assert "2 of these 3 tasks (gcd, sieve)" in said


def test_nothing_is_said_of_held_out_tasks(tmp_path: Path) -> None:
    assert trained_notices(str(trained(tmp_path / "sft", {"rows by task": {"wrap": 4}})), TASKS) == []


@pytest.mark.parametrize("model", ["", "openai/gpt-4o-mini", "Qwen/Qwen2.5-1.5B"])
def test_nothing_is_said_of_a_model_without_a_record(model: str) -> None:
    assert trained_notices(model, TASKS) == []


@pytest.mark.parametrize("lost", ["no card", "changed", "gone", "no tasks", "an earlier run is gone"])
def test_what_is_not_known_is_said(tmp_path: Path, lost: str) -> None:
    counts = None if lost == "no card" else {"formats": {"solution": 3}} if lost == "no tasks" else {"tasks": {}}
    before = str(tmp_path / "no more") if lost == "an earlier run is gone" else ""
    run = trained(tmp_path / "sft", counts, before)
    if lost == "changed":
        (run / "rows.card.json").write_text("{}")
    elif lost == "gone":
        (run / "rows.card.json").unlink()
    (said,) = trained_notices(str(run), TASKS)
    assert "is recorded in part only" in said


def test_a_record_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    run = trained(tmp_path / "sft", {"tasks": {}})
    (run / "train.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        trained_notices(str(run), TASKS)
