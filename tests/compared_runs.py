"""Run directories with known outcomes, as `repo-agent eval` writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.records import Header, Message, Sampling, Score, StopReason
from harness.rollout import RolloutEnded
from harness.run_files import RunConfig, claim_directory
from harness.trace_store import TraceStore
from tests.conftest import NOT_REPLAYABLE

Outcomes = Mapping[str, Sequence[bool | None]]
"""By task, whether each rollout solved it; None: the infrastructure failed."""

CONFIG = {
    "suite": "minibugs",
    "suite_version": "v1",
    "policy": "openai",
    "model": "m",
    "oracle": False,
    "test_policy": "on_write",
    "tool_protocol": "json",
    "sandbox": "docker",
    "isolation": "run",
    "max_iters": 30,
    "rollouts": 1,
    "seed": 0,
    "temperature": 0.7,
    "max_tokens": 4096,
    "stop_on_loop": False,
}


def played(
    directory: Path,
    outcomes: Outcomes,
    tasks: Sequence[str] = (),
    goals: Mapping[str, str] | None = None,
    about: Mapping[str, object] | None = None,
    **settings: Any,
) -> Path:
    """A run that came out so.

    Args:
        tasks: those that it should have played, where some were not begun.
        goals: what was asked, by task, where it is not the task's name.
        about: what run.json says beside the configuration.
    """
    most = max(map(len, outcomes.values()), default=1)
    chosen = {"tasks": tuple(tasks or outcomes), "rollouts": most} | settings
    config = RunConfig.model_validate({**CONFIG, **chosen})
    claim_directory(directory, config, dict(about or {}))
    (directory / NOT_REPLAYABLE).touch()
    with TraceStore(directory) as store:
        for task, results in outcomes.items():
            goal = (goals or {}).get(task, task)
            for index, solved in enumerate(results):
                write_rollout(store, config, task, index, solved, goal)
    return directory


def write_rollout(
    store: TraceStore, config: RunConfig, task: str, index: int, solved: bool | None, goal: str = "", **header: Any
) -> None:
    begun = Header(
        rollout=header.pop("rollout", f"{task}#{index}"),
        task=task,
        suite=config.suite,
        suite_version=config.suite_version,
        index=index,
        policy=config.policy,
        model=config.model,
        sampling=Sampling(),
        test_policy=config.test_policy,
        expected_tests=("test_it.py::test_it",),
        **header,
    )
    recorder = store.recorder(begun)
    recorder.start((Message(role="system", content="repair"), Message(role="user", content=goal or task)))
    if solved is None:
        recorder.end(RolloutEnded(StopReason.ERROR, Score(value=None, why="engine down"), "engine down"))
    else:
        recorder.done(StopReason.FINAL)
        recorder.end(RolloutEnded(StopReason.FINAL, Score(value=float(solved))))


def single(solved: int, count: int, first: int = 0) -> dict[str, list[bool]]:
    """So many tasks with one rollout each, the first ones of which are solved."""
    return {f"task{number:02}": [number < first + solved] for number in range(first, first + count)}
