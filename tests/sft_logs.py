"""Trace logs of made-up rollouts, written by the real store, and what is extracted of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.records import (
    Completion,
    Header,
    Message,
    Sampling,
    Score,
    Step,
    StepScore,
    StopReason,
    TestPolicy,
    TestReport,
    Trace,
)
from harness.redaction import Redactor
from harness.rollout import RolloutEnded
from harness.trace_store import TraceStore
from tools.files import ToolErrorKind
from tools.protocol import call_text, final_text, parse
from trainers.card import card_paths
from trainers.data_cli import main as data_main
from trainers.sft_extract_cli import main

PROMPT = (Message(role="system", content="You repair."), Message(role="user", content='GOAL: é ✓ \u2028 "q" \\ \x01'))
TESTS = tuple(f"t.py::{name}" for name in "abcd")
LIST, FINAL = call_text("list_files"), final_text("done: é\n\u2028")
READ = call_text("read_file", rel_path="a.py")
FENCED = f"```json\n{READ}\n```"
BASE = "base tree"


def write(content: str) -> str:
    return call_text("write_file", rel_path="a.py", content=content)


def steps(*texts: str, **more: Any) -> list[Step]:
    """One step per text. A write changes the tree's digest; `passed` gives the passing tests after each write, `error`
    and `loop` the indices of the steps that have one."""
    passed = list(more.get("passed", ()))
    made: list[Step] = []
    digest = BASE
    for index, text in enumerate(texts):
        call = parse(text)
        report = None
        if call.name == "write_file":
            digest = f"tree with {call.args['content']}"
            report = _report(passed.pop(0)) if passed else None
        error = ToolErrorKind.NOT_FOUND if index in more.get("error", ()) else None
        made.append(
            Step(
                id=f"s{index:04d}",
                parent=f"s{index - 1:04d}" if index else None,
                completion=Completion(text=text),
                call=call,
                error=error if call.usable else ToolErrorKind.PARSE,
                observation=None if call.name == "final" else more.get("observation", f"[tool_result]\n{index} \x02"),
                report=report,
                digest=digest,
                loop=index in more.get("loop", ()),
            )
        )
    return made


def _report(passed: int) -> TestReport:
    outcomes = {test: "passed" if index < passed else "failed" for index, test in enumerate(TESTS)}
    return TestReport(outcomes=outcomes, expected=TESTS)


def header(rollout: str, **more: Any) -> Header:
    fields: dict[str, Any] = {
        "task": rollout.partition("#")[0],
        "suite": "demo",
        "suite_version": "1",
        "split": "train",
        "index": int(rollout.partition("#")[2][:1]),
        "policy": "scripted",
        "sampling": Sampling(),
        "test_policy": TestPolicy.ON_WRITE,
        "expected_tests": TESTS,
    }
    return Header(rollout=rollout, **{**fields, **more})


def record(
    store: TraceStore, rollout: str, path: Sequence[Step], value: float | None = 1.0, shared: int = 0, **more: Any
) -> Trace:
    """Record a rollout; the first `shared` steps of its path are its parent's."""
    made = header(rollout, **more)
    taken = Trace(header=header(made.fork.rollout), steps=tuple(path[:shared])) if made.fork else None
    recorder = store.recorder(made, taken)
    recorder.start(PROMPT)
    for step in path[shared:]:
        recorder.completion(step.id, step.parent, step.completion)
        recorder.outcome(step)
    recorder.end(RolloutEnded(StopReason.FINAL, Score(value=value)))
    return recorder.trace


def log(directory: Path, *paths: Sequence[Step], value: float | None = 1.0, **more: Any) -> Path:
    """A log with one rollout of one task per path."""
    directory.mkdir(parents=True, exist_ok=True)
    with TraceStore(directory, Redactor({})) as store:
        for index, path in enumerate(paths):
            record(store, f"task#{index}", path, value, **more)
    return directory


def extract(directory: Path, *flags: str, output: Path | None = None) -> list[dict[str, Any]]:
    """The rows; that they are sound is checked each time."""
    file = output or directory.parent / "rows.jsonl"
    assert main(["--trace-dir", str(directory), "--output", str(file), *flags]) == 0
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]
    assert not rows or data_main(["check", str(file)]) == 0
    return rows


def actions(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What each row trains last."""
    return [(row["completion"] if "completion" in row else row["messages"])[-1]["content"] for row in rows]


def weights(row: dict[str, Any]) -> list[int]:
    return [message["weight"] for message in row["messages"] if message["role"] == "assistant"]


def dropped(directory: Path, unit: str) -> dict[str, int]:
    card = json.loads(card_paths(directory.parent / "rows.jsonl")[0].read_text(encoding="utf-8"))
    found: dict[str, int] = card["dropped"].get(unit, {})
    return found


def messages_of(trace: Trace) -> list[Message]:
    made = list(trace.header.prompt)
    for step in trace.steps:
        made.append(Message(role="assistant", content=step.completion.text))
        made += [Message(role="user", content=step.observation)] if step.observation is not None else []
    return made


def noted(store: TraceStore, rollout: str, path: Sequence[Step], *passed: int) -> None:
    """Step scores: of the task's own tree, then of the tree after each step."""
    trees = [(None, BASE), *((step.id, step.digest) for step in path)]
    for (step, digest), count in zip(trees, passed, strict=True):
        note = StepScore(
            rollout=rollout, step=step, suite_version="1", digest=digest, passed=count, expected=len(TESTS)
        )
        store.note(note)
