"""Solving paths: of a solved rollout the steps that its final patch needed, played again as a rollout of their own.

A path is: the first `list_files`; of the files that the patch changes and of the test files the first read that shows
the whole file, or else every part that was read (before the file's last write); the last write of each file of the
patch; the final answer. In the order of the rollout, word for word. A file that was changed without having been read
makes no path: writing blind is nothing to teach.

What is verified is not this guess but its result: the path is played in the real environment, and counts only if it
scores 1. Its rows show what the environment answered then.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.policies.scripted import ScriptedPolicy
from harness.records import Header, Step, StopReason, Task, TestPolicy, Trace
from harness.rollout import RolloutLimits, rollout
from harness.trace_store import TraceStore
from sandboxes.base import SandboxBackend
from sandboxes.workspace import PathError, clean_path
from suites.base import Suite, load, load_recorded
from tools.protocol import FINAL, ToolCall, arguments
from trainers.extract import Drop, Rules, is_write


@dataclass(frozen=True)
class SolvingPath:
    """A path to be played."""

    header: Header
    suite: Suite
    task: Task
    texts: tuple[str, ...]


class SuiteTable:
    """The suites that rollouts belong to, each loaded once.

    Args:
        override: name or file of the suite that all rollouts are of, whatever their headers say.
    """

    def __init__(self, override: str | None, mirror: Path | None) -> None:
        self._override, self._mirror = override, mirror
        self._known: dict[str, tuple[Suite, dict[str, Task]]] = {}

    def find(self, header: Header) -> tuple[Suite, Task]:
        """Raises UsageError for a suite that has to be named, or without that task."""
        name = self._override or header.suite
        if name not in self._known:
            recorded = None if self._override else load_recorded(name, header.suite_version, self._mirror)
            suite = recorded or load(name, self._mirror)
            self._known[name] = suite, {task.id: task for task in suite.tasks()}
        suite, tasks = self._known[name]
        if header.task not in tasks:
            raise UsageError(f"suite {name} has no task {header.task} (rollout {header.rollout}): see --suite")
        return suite, tasks[header.task]


class PathFinder:
    """Finds the paths of solved rollouts; what gives none, or one that is known, is counted in `dropped`."""

    def __init__(self, rules: Rules, suites: SuiteTable) -> None:
        self._rules, self._suites = rules, suites
        self.dropped: list[Drop] = []

    def paths(self, traces: Iterable[tuple[int, Trace]]) -> Iterator[SolvingPath]:
        known: set[tuple[str, tuple[str, ...]]] = set()
        for log, trace in traces:
            found = self._path(trace, log)
            if isinstance(found, SolvingPath) and (found.task.id, found.texts) in known:
                found = Drop.SAME_PATH
            if isinstance(found, Drop):
                self.dropped.append(found)
            else:
                known.add((found.task.id, found.texts))
                yield found

    def _path(self, trace: Trace, log: int) -> SolvingPath | Drop:
        score = self._rules.grade(trace)
        if score is None or score.value is None:
            return Drop.UNSCORED
        if score.value != 1:
            return Drop.UNSOLVED
        suite, task = self._suites.find(trace.header)
        texts = path_texts(trace.steps, task)
        return SolvingPath(_header(trace.header, log, suite, task), suite, task, texts) if texts else Drop.NO_PATH


def _header(of: Header, log: int, suite: Suite, task: Task) -> Header:
    change: dict[str, object] = {
        "rollout": f"{of.rollout}~path" + (f"@{log}" if log else ""),
        "fork": None,
        "suite_version": suite.version,
        "expected_tests": task.expected_tests,
        "test_policy": TestPolicy.FINAL if of.test_policy is TestPolicy.NEVER else of.test_policy,
    }
    return of.model_copy(update=change)


def path_texts(steps: Sequence[Step], task: Task) -> tuple[str, ...] | None:
    """What a path says; None where the rollout has none (see above)."""
    try:
        writes = _last_writes(steps, task)
    except PathError:  # the suite is another one than it was
        return None
    tests = {test.partition("::")[0] for test in task.expected_tests}
    reads = {path: _reads(steps[: writes.get(path, len(steps))], path, task) for path in {*writes, *tests}}
    if not writes or any(path in task.tree and not reads[path] for path in writes):
        return None
    kept = {index for found in reads.values() for index in found} | set(writes.values())
    kept |= {next((index for index, step in enumerate(steps) if _sound_call(step, "list_files")), min(kept))}
    kept |= {len(steps) - 1} if _sound_call(steps[-1], FINAL) else set()
    chosen = [steps[index] for index in sorted(kept)]
    strict = all(step.call.problem is None for step in chosen)
    return tuple(step.completion.text for step in chosen) if strict else None


def _sound_call(step: Step, name: str) -> bool:
    return step.call.problem is None and step.call.name == name and step.error is None


def _last_writes(steps: Sequence[Step], task: Task) -> dict[str, int]:
    """Of each file that the final tree changes the index of the step that wrote it last."""
    tree, last = task.tree, dict[str, int]()
    for index, step in enumerate(steps):
        if is_write(step):
            path = _path_of(step.call)
            tree = tree.write(path, str(step.call.args["content"]).encode())
            last[path] = index
    return {path: last[path] for path in tree.edits}


def _reads(steps: Sequence[Step], path: str, task: Task) -> list[int]:
    """The reads of a file that a path keeps: the first one of the whole, or else each part once."""
    parts: dict[str, int] = {}
    for index, step in enumerate(steps):
        if _sound_call(step, "read_file") and _leads_to(step.call, task) == path:
            if not step.truncated:
                return [index]
            parts.setdefault(step.call.canonical, index)
    return list(parts.values())


def _path_of(call: ToolCall) -> str:
    return clean_path(str(arguments(call).model_dump()["rel_path"]))


def _leads_to(call: ToolCall, task: Task) -> str:
    try:
        return task.tree.resolve(_path_of(call))
    except PathError:
        return ""


def play_paths(
    paths: Iterable[SolvingPath], store: TraceStore, backend: SandboxBackend, workers: int
) -> Iterator[tuple[str, Drop | None]]:
    """Play each path and record it: (its rollout's id, why it does not count or None), in the order of the paths.

    An interruption ends the paths under way and is raised.
    """
    cancelled = threading.Event()
    with ThreadPoolExecutor(workers, thread_name_prefix="path") as pool:
        futures = [pool.submit(_played, path, store, backend, cancelled) for path in paths]
        try:
            for future in futures:
                yield future.result()
        except BaseException:
            cancelled.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _played(
    path: SolvingPath, store: TraceStore, backend: SandboxBackend, cancelled: threading.Event
) -> tuple[str, Drop | None]:
    header = path.header.model_copy(update={"sandbox": backend.name, "isolation": str(backend.isolation)})
    recorder = store.recorder(header)
    limits = RolloutLimits(len(path.texts))
    with path.suite.environment(path.task, backend, header.test_policy) as environment:
        ended = rollout(ScriptedPolicy(path.texts), environment, limits, header.sampling, recorder, cancelled)
    if ended.stop in (StopReason.ERROR, StopReason.INTERRUPTED) or ended.score.value is None:
        return header.rollout, Drop.NOT_REPLAYED
    return header.rollout, None if ended.score.value == 1 else Drop.UNVERIFIED
