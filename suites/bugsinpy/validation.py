"""What the runs of a bug's trees say of it: its state, for the status file."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from harness.records import Task
from sandboxes.base import SandboxBackend
from suites.bugsinpy.bug import Bug
from suites.bugsinpy.status import BugStatus, State
from suites.bugsinpy.suite import BugsinpySuite
from suites.validate import Validation, in_threads, validated

NOT_UTF8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "latin-1"}
"""The environment of a locale that knows no more than Latin-1, whatever locales an image has."""
MESSAGES = 3
"""So many failures are kept in a status."""
MAX_RUN_S = 60.0
"""Whole files that take longer make no task: an agent waits for them after each write."""
LIBRARY = re.compile(r"(?:/[\w.+-]+)+/lib/python3\.\d+/")
"""Where an image has its Python: that says nothing of a bug."""
SETTLED = (State.REPRODUCED, State.NEEDS_LATIN1, State.BUGGY_PASSES)
"""What other tests beside those of the bug did not bring about."""
NETWORK = re.compile(
    r"Name or service not known|Temporary failure in name resolution|Network is unreachable|getaddrinfo failed"
    r"|NameResolutionError|nodename nor servname|Connection refused"
)


def states_without_runs(suite: BugsinpySuite, unprepared: Mapping[str, str]) -> dict[str, BugStatus]:
    """The bugs that cannot even be run, and why."""
    states = {bug: BugStatus(bug=bug, state=State.UNREADABLE, why=why) for bug, why in suite.unreadable.items()}
    for bug in suite.bugs.values():
        if bug.compiles:
            why = "its extension modules would have to be compiled in the tree"
            states[bug.id] = BugStatus(bug=bug.id, state=State.COMPILES, why=why)
        elif bug.id in unprepared:
            state = State.NO_REPOSITORY if bug.repository in suite.unfetchable else State.NO_ENVIRONMENT
            states[bug.id] = BugStatus(bug=bug.id, state=state, why=unprepared[bug.id])
    return states


def bug_states(
    suite: BugsinpySuite,
    backend: SandboxBackend,
    tasks: Sequence[Task],
    workers: int,
    repeats: int,
    on_done: Callable[[BugStatus | None, Validation], None],
) -> None:
    """Run candidates; `on_done` is told of each as it ends: its state is None where the sandbox failed."""

    lock = threading.Lock()

    def one(task: Task) -> None:
        status, seen = bug_state(suite, backend, task, repeats)
        with lock:
            on_done(status, seen)

    in_threads(one, tasks, workers, backend)


def bug_state(
    suite: BugsinpySuite, backend: SandboxBackend, task: Task, repeats: int
) -> tuple[BugStatus | None, Validation]:
    """Run one bug with whole test files, and where that does not do, with the tests that upstream names."""
    status, seen = _seen(suite, backend, task, repeats)
    if status is None or (status.state in SETTLED and seen.run_s <= MAX_RUN_S):
        return status, seen
    named, of_named = _seen(suite, backend, suite.with_named_tests(task), repeats)
    if named is None or named.state not in SETTLED:
        return status, seen
    return named.model_copy(update={"whole_files": False}), of_named


def _seen(
    suite: BugsinpySuite, backend: SandboxBackend, task: Task, repeats: int
) -> tuple[BugStatus | None, Validation]:
    """Run one bug, and where that shows nothing once more under another locale."""
    seen = validated(suite, backend, task, repeats)
    if not seen.repeats:
        return None, seen
    status = _status(suite, task, seen)
    if status.state is State.BUGGY_PASSES:
        again = validated(suite, backend, replace(task, env=task.env | NOT_UTF8), 1)
        failing = [test for test in again.failing if suite.bugs[task.id].shown_by(test)]
        if failing and again.reference == 1.0:
            why = f"fails only where the locale is not UTF-8: {', '.join(failing[:3])}"
            status = status.model_copy(update={"state": State.NEEDS_LATIN1, "why": why})
    return status, seen


def _status(suite: BugsinpySuite, task: Task, seen: Validation) -> BugStatus:
    state, why = _state(suite.bugs[task.id], seen)
    reproduced = state is State.REPRODUCED
    return BugStatus(
        bug=task.id,
        state=state,
        why=why,
        environment=suite.bugs[task.id].environment.fingerprint,
        expected=seen.expected if reproduced else (),
        failing=seen.failing if reproduced else (),
        quarantined=seen.quarantined,
        messages=dict(_told(suite.bugs[task.id], seen)[:MESSAGES]) if reproduced else {},
        run_s=seen.run_s,
        slowest_s=seen.slowest_s,
        repeats=seen.repeats,
    )


def _told(bug: Bug, seen: Validation) -> list[tuple[str, str]]:
    """The messages of the tests that are to show the bug; all of them where there are none."""
    messages = [(test, LIBRARY.sub("<python>/", text)) for test, text in seen.messages.items()]
    return [each for each in messages if bug.shown_by(each[0])] or messages


def _state(bug: Bug, seen: Validation) -> tuple[State, str]:
    expected = [test for test in seen.expected if bug.shown_by(test)]
    failing = [test for test in seen.failing if bug.shown_by(test)]
    said = "\n".join(text for _, text in _told(bug, seen))
    last = said.strip().splitlines()[-1:] or ["no test was seen"]
    if not expected or seen.reference != 1.0:
        found = NETWORK.search(said)
        if flaky := [test for test in seen.quarantined if bug.shown_by(test)]:
            return State.FLAKY, f"on the fixed tree: {', '.join(flaky[:3])}"
        return (State.NEEDS_NETWORK, found.group()) if found else (State.FIXED_FAILS, seen.error or last[0][:200])
    if failing:
        return State.REPRODUCED, ""
    if any(bug.shown_by(test) for test in seen.unsteady):
        return State.FLAKY, "the tests that fail on the buggy tree pass there at times"
    return State.BUGGY_PASSES, f"the tests that are to show it pass on the buggy tree too ({len(expected)})"
