"""What a rollout costs on a large tree: `python tests/benchmarks/large_tree.py [SUITE]`.

Takes the largest tree of a suite (default: bugsinpy:ansible, which has up to 18,599 files) and prints, as medians in
milliseconds: list_files, grep with a literal-led pattern (warm), what a rollout adds to prepare the tree once it is
cached, and what a test run takes beside the test itself, there and on a tree of one file. Asked for: under 150 each for
the tools, under 50 for the tree, under 100 for the start of tests. Needs Docker with the base image.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

from harness.environment import RepoEnvironment
from harness.records import Task, TestPolicy
from sandboxes.base import Command, Limits, PytestRun, Resources, Sandbox
from sandboxes.docker_sandbox import DockerBackend
from sandboxes.workspace import MappingTree, Workspace
from suites.bugsinpy.suite import BugsinpySuite
from tools.files import FileState, execute
from tools.protocol import call_text, parse

ROUNDS = 7
TEST = "repo_agent_trivial_test.py"
TRIVIAL = b"def test_nothing():\n    pass\n"


def median_ms(step: Callable[[], object]) -> float:
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) * 1000


def largest(suite: BugsinpySuite) -> Task:
    return max(suite.candidates(), key=lambda task: len(task.tree.paths))


def tool(tree: Workspace, name: str, **args: object) -> Callable[[], object]:
    state, text = FileState(tree), call_text(name, **args)
    return lambda: execute(state, parse(text), lambda path: True)


def prepared(suite: BugsinpySuite, task: Task, backend: DockerBackend) -> None:
    """What the first rollout of a task does before its first step in a process, where the tree is cached."""
    again = next(each for each in suite.candidates() if each.id == task.id)
    with RepoEnvironment(again, backend, TestPolicy.ON_WRITE) as environment:
        environment.start()
        len(environment.tree.paths)


def run(sandbox: Sandbox, tree: Workspace) -> float:
    """Wall-clock seconds of a run of one test that does nothing."""
    started = time.perf_counter()
    result = sandbox.run(tree.write(TEST, TRIVIAL), Command(PytestRun((TEST,)), limits=Limits()))
    assert [record.outcome for record in result.records] == ["passed"], result
    return time.perf_counter() - started - sum(record.seconds for record in result.records)


def main(name: str) -> None:
    suite = BugsinpySuite(None, name.removeprefix("bugsinpy"))
    task = largest(suite)
    small = Workspace(MappingTree({"README.txt": b"a small tree\n"}))
    print(f"{task.id}: {len(task.tree.paths)} files")
    print(f"list_files                      {median_ms(tool(task.tree, 'list_files')):8.1f}")
    grep = tool(task.tree, "grep", pattern="def run_command")
    grep()
    print(f"grep, literal-led, warm         {median_ms(grep):8.1f}")
    backend = DockerBackend()
    try:
        print(f"prepare the tree for a rollout  {median_ms(lambda: prepared(suite, task, backend)):8.1f}")
        with backend.open(Resources(tree_by_mount=True)) as sandbox:
            run(sandbox, task.tree)
            there, here = ([run(sandbox, tree) for _ in range(ROUNDS)] for tree in (task.tree, small))
        print(f"a test run beside its test      {statistics.median(there) * 1000:8.1f}")
        print(f"the same, on a tree of one file {statistics.median(here) * 1000:8.1f}")
    finally:
        backend.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "bugsinpy:ansible")
