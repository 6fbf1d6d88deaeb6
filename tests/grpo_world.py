"""What the tests of GRPO share: the command on a tiny model, and what a training does inside."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import repo_agent
from harness.records import Score, Trace
from harness.trace_reader import read_traces
from suites.base import SuiteFile, load, write_suite_file
from suites.gsm8k.environment import QuestionEnvironment

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the libraries are imported, which is later

TIMES = ("seconds", "step_time")
"""Figures that depend on the machine begin with these."""
FORGETFUL = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if loop.last %}{{ message['content'] }}{% else %}{{ message['content'].split('</think>')[-1].strip() }}"
    "{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""A chat template that leaves thoughts out once the conversation goes on."""
ARITH = ("--suite", "arith:train", "--limit", "12")


def grpo(model: Path, run: Path, *flags: str) -> int:
    """The command, with few small rollouts one after the other: which are sampled together changes rounding."""
    small = ["--max-steps", "2", "--prompts-per-step", "2", "--num-generations", "4", "--max-tokens", "12"]
    here = ["--num-workers", "1", "--device", "cpu", "--report-to", "none", "--learning-rate", "1e-2"]
    return repo_agent.main(["train", "grpo", "--model", str(model), "--output-dir", str(run), *small, *here, *flags])


def minibugs(directory: Path) -> tuple[str, ...]:
    """Flags for episodes of three turns on three tasks whose own trees are soon tested, and then known."""
    path, whole = directory / "three.json", load("minibugs")
    names = ("config_layers", "rolling_window", "room_bookings")
    write_suite_file(path, SuiteFile(name="three", suite="minibugs", version=whole.version, tasks=names))
    return ("--suite", str(path), "--test-policy", "final", "--max-iters", "3", "--sandbox", "local")


def odd_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """A question's answer is right if its first token is odd: something that an untrained model can learn."""

    def score(self: QuestionEnvironment) -> Score:
        assert self._said
        return Score(value=float((self._said.token_ids or (0,))[0] % 2))

    monkeypatch.setattr(QuestionEnvironment, "score", score)


def make_model(directory: Path) -> Path:
    """An untrained model of two layers, for conversations of 4,096 tokens; vLLM too knows heads of 32."""
    from trainers.tiny_model import TinyShape, init_tiny

    init_tiny(directory, 0, TinyShape(400, 64, 2, 2, 128, 4096))
    return directory


def steps(run: Path) -> list[dict[str, Any]]:
    """The logged steps, without what depends on the machine's speed."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith(TIMES)} for line in lines]


def traces(run: Path) -> list[Trace]:
    return list(read_traces(run / "traces"))


def watched(monkeypatch: pytest.MonkeyPatch, name: str, look: Callable[..., Any]) -> list[Any]:
    """What `look(trainer, result, *arguments)` makes of each call of one of the trainer's methods."""
    from trainers.grpo import EpisodeTrainer

    inner, seen = getattr(EpisodeTrainer, name), list[Any]()

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = inner(self, *args, **kwargs)
        seen.append(look(self, result, *args, **kwargs))
        return result

    monkeypatch.setattr(EpisodeTrainer, name, method)
    return seen
