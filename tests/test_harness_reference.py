"""The oracle plays by the rules that hold for a model."""

from __future__ import annotations

from harness.environment import RepoEnvironment
from harness.policies.reference import ReferenceSource
from harness.records import Sampling, Task, TestPolicy
from sandboxes.base import SandboxBackend
from sandboxes.workspace import MappingTree, Workspace

LONG = b"".join(b"value_%d = %d\n" % (number, number) for number in range(12_000))
TREE = Workspace(MappingTree({"lib.py": LONG + b"answer = 41\n", "tests/test_lib.py": b"def test_it(): pass\n"}))
TASK = Task(
    id="long",
    suite="made",
    goal="",
    tree=TREE,
    editable=("lib.py",),
    expected_tests=("tests/test_lib.py::test_it",),
    test_args=("tests",),
)


def test_a_file_that_is_too_long_for_one_read_is_read_to_its_end_before_it_is_written(
    local_backend: SandboxBackend,
) -> None:
    assert len(LONG) > 200_000
    fixed = TREE.write("lib.py", LONG + b"answer = 42\n")
    policy = ReferenceSource(lambda task: fixed).policy(TASK, 0)
    with RepoEnvironment(TASK, local_backend, TestPolicy.FINAL) as environment:
        messages = list(environment.start())
        calls = []
        while True:
            completion = policy.complete(messages, Sampling())
            outcome = environment.step(completion)
            calls.append(outcome.call.name)
            if outcome.stop:
                break
            assert outcome.result is not None and outcome.result.error is None
            messages += [
                messages[0].model_copy(update={"role": "assistant", "content": completion.text}),
                messages[0].model_copy(update={"role": "user", "content": outcome.observation}),
            ]
        assert environment.tree.digest == fixed.digest
    assert calls == ["list_files", "read_file", "read_file", "read_file", "write_file", "final"]
