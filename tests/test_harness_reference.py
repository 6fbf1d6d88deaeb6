"""The oracle plays by the rules that hold for a model."""

from __future__ import annotations

import pytest

from harness.environment import RepoEnvironment, StepOutcome
from harness.policies.reference import CUT_OFF, ReferenceSource
from harness.policy import Policy
from harness.records import Sampling, Task, TestPolicy
from repo_agent import main
from sandboxes.base import SandboxBackend
from sandboxes.workspace import MappingTree, Workspace
from tools.protocol import ParseProblem

LONG = b"".join(b"value_%d = %d\n" % (number, number) for number in range(12_000))
TREE = Workspace(MappingTree({"lib.py": LONG + b"answer = 41\n", "tests/test_lib.py": b"def test_it(): pass\n"}))
FIXED = TREE.write("lib.py", LONG + b"answer = 42\n")
TASK = Task(
    id="long",
    suite="made",
    goal="",
    tree=TREE,
    editable=("lib.py",),
    expected_tests=("tests/test_lib.py::test_it",),
    test_args=("tests",),
)


def played(policy: Policy, backend: SandboxBackend, temperature: float = 0.0) -> list[StepOutcome]:
    """All steps of a rollout, with another seed at each."""
    outcomes: list[StepOutcome] = []
    with RepoEnvironment(TASK, backend, TestPolicy.FINAL) as environment:
        messages = list(environment.start())
        while not outcomes or not outcomes[-1].stop:
            completion = policy.complete(messages, Sampling(temperature=temperature, seed=len(messages)))
            outcomes.append(environment.step(completion))
            messages += [
                messages[0].model_copy(update={"role": "assistant", "content": completion.text}),
                messages[0].model_copy(update={"role": "user", "content": outcomes[-1].observation}),
            ]
        assert environment.tree.digest == FIXED.digest
    return outcomes


def test_a_file_that_is_too_long_for_one_read_is_read_to_its_end_before_it_is_written(
    local_backend: SandboxBackend,
) -> None:
    assert len(LONG) > 200_000
    outcomes = played(ReferenceSource(lambda task: FIXED).policy(TASK, 0), local_backend)
    assert [each.call.name for each in outcomes] == ["list_files", *["read_file"] * 3, "write_file", "final"]
    assert not any(each.result and each.result.error for each in outcomes)


def test_a_write_that_was_cut_off_is_written_again_after_another_look(local_backend: SandboxBackend) -> None:
    policy = ReferenceSource(lambda task: FIXED, CUT_OFF).policy(TASK, 0)
    outcomes = played(policy, local_backend, temperature=2.0)
    broken = [place for place, each in enumerate(outcomes) if each.call.problem]
    assert broken and all(outcomes[place].call.problem is ParseProblem.TRUNCATED for place in broken)
    assert all(outcomes[place + 1].call.name == "read_file" for place in broken)
    assert [outcomes[place + 2].call.name or "broken" for place in broken[:-1]] == ["broken"] * (len(broken) - 1)
    assert [each.call.name for each in outcomes[-2:]] == ["write_file", "final"]


def test_a_kind_of_mistakes_that_there_is_not_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--llm-provider", "reference", "--model", "typos", "--suite", "minibugs"]) == 2
    assert "makes mistakes of a kind: --model edit or cut-off" in capsys.readouterr().err
