"""What a test run says is a function of the tree: nothing of the machine, its load or its memory is in it."""

from __future__ import annotations

import re

from sandboxes.base import Command, ExecResult, PytestRun, Resources
from sandboxes.local_sandbox import LocalBackend
from sandboxes.workspace import MappingTree, Workspace

HANGS = {
    "test_busy": "    while True:\n        pass\n",
    "test_asleep": "    import time\n\n    time.sleep(60)\n",
}


def run(backend: LocalBackend, tests: dict[str, str], decisive: tuple[str, ...] = ()) -> ExecResult:
    source = "".join(f"def {name}():\n{body}\n\n" for name, body in tests.items())
    tree = Workspace(MappingTree({"test_it.py": source.encode()}))
    made = PytestRun(("test_it.py",), 0.3, 0.6, decisive=decisive)
    with backend.open(Resources()) as sandbox:
        return sandbox.run(tree, Command(made))


def test_address_that_pytest_shortens_is_masked_too(local_backend: LocalBackend) -> None:
    body = "    generator = (x for x in ())\n    assert generator == list(range(99))\n"
    (record,) = run(local_backend, {"test_address": body}).records
    assert "<generator ob...>" in record.message
    assert not re.search(r"0x|[0-9a-f]{6,}", record.message)


def test_time_limit_reads_the_same_whichever_clock_ran_out(local_backend: LocalBackend) -> None:
    busy, asleep = run(local_backend, HANGS).records
    assert (busy.outcome, asleep.outcome) == ("failed", "failed")
    assert busy.message == asleep.message
    assert "0.3 s of CPU time or 0.6 s" in busy.message


def test_run_ends_at_the_first_decisive_test_that_goes_over_its_limit(local_backend: LocalBackend) -> None:
    found = run(local_backend, HANGS, decisive=("test_it.py::test_busy",))
    assert [record.id for record in found.records] == ["test_it.py::test_busy"]


def test_other_tests_that_go_over_their_limit_do_not_end_a_run(local_backend: LocalBackend) -> None:
    found = run(local_backend, HANGS, decisive=("test_it.py::test_asleep",))
    assert [record.id for record in found.records] == ["test_it.py::test_busy", "test_it.py::test_asleep"]
