"""The search policy: a function of the conversation, that uses nothing but tools and feedback."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.environment import RepoEnvironment
from harness.policies.search import SearchPolicy
from harness.records import Message, Sampling, Task, TestPolicy
from sandboxes.base import SandboxBackend
from sandboxes.workspace import MappingTree, Workspace
from tools.protocol import parse

TWO_FAULTS = {
    "shop/__init__.py": b"",
    "shop/price.py": b"def gross(net, rate):\n    return net - net * rate\n",
    "shop/cart.py": (
        b"from shop.price import gross\n\n\ndef total(items, rate):\n    result = 0\n"
        b"    for count, net in items:\n        result += count + gross(net, rate)\n    return result\n"
    ),
    "tests/test_shop.py": (
        b"from shop.cart import total\nfrom shop.price import gross\n\n\n"
        b"def test_gross():\n    assert gross(100, 0.5) == 150\n\n\n"
        b"def test_total():\n    assert total([(2, 100), (3, 10)], 0.5) == 345\n"
    ),
}
TASK = Task(
    id="shop",
    suite="search",
    goal="prices are wrong",
    tree=Workspace(MappingTree(TWO_FAULTS)),
    editable=("shop/**/*.py",),
    expected_tests=("tests/test_shop.py::test_gross", "tests/test_shop.py::test_total"),
    test_args=("tests",),
    feedback_cpu_s=1,
)


def play(backend: SandboxBackend, task: Task, max_iters: int, tests: TestPolicy = TestPolicy.ON_WRITE) -> list[Message]:
    """The messages of one search, the prompt first."""
    policy = SearchPolicy()
    with RepoEnvironment(task, backend, tests) as environment:
        messages = list(environment.start())
        for _ in range(max_iters):
            completion = policy.complete(messages, Sampling())
            outcome = environment.step(completion)
            messages.append(Message(role="assistant", content=completion.text))
            if outcome.observation is None:
                break
            messages.append(Message(role="user", content=outcome.observation))
    return messages


def test_the_next_message_depends_on_the_conversation_alone(local_backend: SandboxBackend) -> None:
    messages = play(local_backend, TASK, 12)
    for end in range(2, len(messages), 2):
        fresh = SearchPolicy().complete(messages[:end], Sampling(seed=end))
        assert fresh.text == messages[end].content


def test_two_conversations_may_share_one_policy_and_fork(local_backend: SandboxBackend) -> None:
    messages = play(local_backend, TASK, 8)
    policy = SearchPolicy()
    for end in (2, 4, 6, 4, 6, 8, 2):
        assert policy.complete(messages[:end], Sampling()).text == messages[end].content


def test_every_message_is_strictly_of_the_protocol(local_backend: SandboxBackend) -> None:
    messages = play(local_backend, TASK, 30)
    assert [parse(m.content).problem for m in messages if m.role == "assistant"] == [None] * (len(messages) // 2 - 1)


def test_without_feedback_it_gives_up(local_backend: SandboxBackend) -> None:
    messages = play(local_backend, TASK, 20, TestPolicy.FINAL)
    assert parse(messages[-1].content).name == "final"
    assert sum("write_file" in message.content for message in messages if message.role == "assistant") == 1


@pytest.mark.slow
def test_it_builds_on_an_edit_that_made_more_tests_pass(local_backend: SandboxBackend) -> None:
    """Two faults in two files: no single edit is enough."""
    messages = play(local_backend, replace(TASK, feedback_cpu_s=0.5), 700)
    assert "[TESTS PASS]" in messages[-2].content
