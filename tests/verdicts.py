"""Two ways to run a task's tests, forked by the guest and cold by `python -m pytest`, held against each other."""

from __future__ import annotations

import json

from harness.records import Task
from sandboxes.base import Command, Limits, PytestRun, Sandbox
from sandboxes.docker_sandbox import DockerBackend
from sandboxes.workspace import Workspace
from suites.base import Suite

LIMITS = Limits(cpu_s=120, wall_s=400, output_bytes=2**20)
HEAVY = {"levenshtein": 20.0}
"""CPU seconds of a test of tasks that need more than the usual one."""
PLUGIN = """
import json, signal
import pytest

outcomes = {}

def over(number, frame):
    signal.setitimer(signal.ITIMER_PROF, 1)
    pytest.fail("over the limit", pytrace=False)

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)

def pytest_collectreport(report):
    if report.failed:
        outcomes[report.nodeid] = "error"

def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        outcomes[report.nodeid] = "error" if report.failed and report.when != "call" else report.outcome

def pytest_unconfigure():
    print("OUTCOMES " + json.dumps(outcomes))
"""


def cold_outcomes(sandbox: Sandbox, task: Task, tree: Workspace, cpu_s: float) -> dict[str, str]:
    """What pytest itself says, by a plugin that shares nothing with the driver's reporter."""
    plugin = PLUGIN.replace("LIMIT_S", str(cpu_s)).encode()
    words = ("python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "cold_plugin", *task.test_args)
    result = sandbox.run(tree.write("cold_plugin.py", plugin), Command(words, task.pythonpath, limits=LIMITS))
    lines = [line for line in result.output.splitlines() if line.startswith("OUTCOMES ")]
    assert len(lines) == 1, result.output[-2000:]
    found: dict[str, str] = json.loads(lines[0].removeprefix("OUTCOMES "))
    return found


def forked_outcomes(sandbox: Sandbox, task: Task, tree: Workspace, cpu_s: float) -> dict[str, str]:
    run = PytestRun(task.test_args, test_cpu_s=cpu_s, test_wall_s=200)
    result = sandbox.run(tree, Command(run, task.pythonpath, limits=LIMITS))
    return {record.id: record.outcome for record in result.records}


def disagreements(suite: Suite, version: str, backend: DockerBackend) -> tuple[dict[str, object], int, int]:
    """By task, the tests on which they disagree; how many tests there were, and how many of them failed."""
    different: dict[str, object] = {}
    tests = failing = 0
    for task in suite.tasks():
        tree = task.tree if version == "buggy" else suite.reference(task)
        assert tree is not None
        cpu_s = HEAVY.get(task.id, 1.0)
        with backend.open(task.resources, task.image) as sandbox:
            cold = cold_outcomes(sandbox, task, tree, cpu_s)
            forked = forked_outcomes(sandbox, task, tree, cpu_s)
        tests += len(cold)
        failing += sum(outcome in ("failed", "error") for outcome in cold.values())
        if cold != forked:
            different[task.id] = {test: (cold.get(test), forked.get(test)) for test in {*cold, *forked}}
    return different, tests, failing
