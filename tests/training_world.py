"""What the tests of training share: a model of a few thousand parameters, rows, and the command itself."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import repo_agent
from tools.protocol import call_text, final_text

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the libraries are imported, which is later

SYSTEM = {"role": "system", "content": "Repair it."}
ACTIONS = (
    call_text("list_files"),
    call_text("read_file", rel_path="a.py"),
    call_text("write_file", rel_path="a.py", content="x = 1\n"),
    call_text("read_file", rel_path="tests/test_a.py"),
    final_text("done"),
)
OBSERVATIONS = ("a.py", "x = 2", "written", "assert x == 1")


def make_tiny(directory: Path, seed: int = 0) -> Path:
    """An untrained model of two layers with the project's own tokenizer."""
    from trainers.tiny_model import TinyShape, init_tiny

    init_tiny(directory, seed, TinyShape(400, 32, 2, 2, 64, 512))
    return directory


def conversation(task: str, steps: int) -> list[dict[str, Any]]:
    """The messages of a rollout before its step number `steps`, from 0."""
    messages: list[dict[str, Any]] = [SYSTEM, {"role": "user", "content": f"Task {task}."}]
    for action, observation in zip(ACTIONS[:steps], OBSERVATIONS, strict=False):
        messages += [{"role": "assistant", "content": action}, {"role": "user", "content": observation}]
    return messages


def step_row(task: str, step: int) -> dict[str, Any]:
    answer = {"role": "assistant", "content": ACTIONS[step]}
    return {"prompt": conversation(task, step), "completion": [answer]}


def pair_row(task: str, step: int, **extra: Any) -> dict[str, Any]:
    """The better action is the one of `step`, the worse one asks for the files again."""
    worse = call_text("list_files", rel_dir=task)
    sides = [[{"role": "assistant", "content": text}] for text in (ACTIONS[step], worse)]
    return {"prompt": conversation(task, step), "chosen": sides[0], "rejected": sides[1], **extra}


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def step_rows(path: Path, tasks: int = 3, steps: int = 4) -> Path:
    return write_rows(path, [step_row(f"t{task}", step) for task in range(tasks) for step in range(steps)])


def pair_rows(path: Path, tasks: int = 2, steps: int = 4) -> Path:
    return write_rows(path, [pair_row(f"t{task}", step) for task in range(tasks) for step in range(steps)])


def train(kind: str, model: Path, data: Path, run: Path, *flags: str) -> int:
    """The command, with few steps of a high learning rate."""
    small = ["--batch-size", "4", "--epochs", "1", "--report-to", "none", "--device", "cpu"]
    given = ["--dataset", str(data), "--model", str(model), "--output-dir", str(run), *small, *flags]
    return repo_agent.main(["train", kind, *given])


def metrics(run: Path) -> list[dict[str, Any]]:
    """The logged steps, without what depends on the machine's speed."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key not in _TIMES} for line in lines]


_TIMES = ("seconds", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second")


def result(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "result.json").read_text(encoding="utf-8"))
    return found


def record(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "train.json").read_text(encoding="utf-8"))
    return found
