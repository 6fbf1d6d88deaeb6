"""The loop: why it ends, what it records, and that faults have their fates."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest

from harness.environment import RepoEnvironment
from harness.errors import InfrastructureError, PolicyRefused, RolloutEnd
from harness.policies.scripted import ScriptedPolicy
from harness.policy import Policy
from harness.records import Completion, FinishReason, Message, Sampling, Step, StopReason, Task, TestPolicy
from harness.rollout import RolloutEnded, RolloutLimits, derived_seed, rollout
from sandboxes.base import Isolation, Promises, Resources, Sandbox, SandboxError, Wall
from sandboxes.local_sandbox import LocalBackend
from sandboxes.workspace import MappingTree, Workspace
from tools.files import ToolErrorKind
from tools.protocol import call_text, final_text

WRONG, RIGHT = "def one():\n    return 2\n", "def one():\n    return 1\n"
TASK = Task(
    id="one",
    suite="demo",
    goal="Make it one.",
    tree=Workspace(
        MappingTree(
            {
                "lib.py": WRONG.encode(),
                "test_lib.py": b"from lib import one\n\ndef test_one():\n    assert one() == 1\n",
            }
        )
    ),
    editable=("lib.py",),
    expected_tests=("test_lib.py::test_one",),
    test_args=("test_lib.py",),
)
LIMITS = RolloutLimits(10)
LIST, READ = call_text("list_files"), call_text("read_file", rel_path="lib.py")
FIX, BREAK = (call_text("write_file", rel_path="lib.py", content=text) for text in (RIGHT, WRONG))
DONE = final_text("done")


@dataclass
class Log:
    """A recorder that keeps the order of what it is told."""

    events: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    prompt: tuple[Message, ...] = ()

    def start(self, prompt: tuple[Message, ...]) -> None:
        self.events.append("start")
        self.prompt = prompt

    def completion(self, step_id: str, parent: str | None, completion: Completion) -> None:
        self.events.append(f"completion {step_id} after {parent}")

    def outcome(self, step: Step) -> None:
        self.events.append(f"outcome {step.id}")
        self.steps.append(step)

    def done(self, stop: StopReason) -> None:
        self.events.append(f"done {stop}")

    def end(self, end: RolloutEnded) -> None:
        self.events.append("end")


@dataclass
class Speaker:
    """A policy that does one thing, and keeps what it was asked."""

    answer: Completion | Exception
    asked: list[tuple[list[Message], Sampling]] = field(default_factory=list)

    def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        self.asked.append((list(messages), sampling))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class NoSandbox:
    """A backend that has none."""

    name = "none"
    isolation = Isolation.CONTAINER
    promises = Promises(boundary=True, separate_user=True, memory_limit=True, pids_limit=True, wall=Wall.USER)
    about: dict[str, str] = {}

    def identity(self, image: str = "") -> str:
        return ""

    def prepare(self, resources: Resources, image: str, sandboxes: int) -> None:
        return None

    def open(self, resources: Resources, image: str = "") -> Sandbox:
        raise SandboxError("no sandbox here")

    def close(self) -> None:
        return None


def play(
    policy: Policy,
    backend: LocalBackend | NoSandbox,
    test_policy: TestPolicy = TestPolicy.ON_WRITE,
    limits: RolloutLimits = LIMITS,
    cancelled: threading.Event | None = None,
    task: Task = TASK,
) -> tuple[RolloutEnded, Log]:
    log = Log()
    with RepoEnvironment(task, backend, test_policy) as environment:
        return rollout(policy, environment, limits, Sampling(seed=5), log, cancelled), log


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("harness.environment.SANDBOX_ATTEMPTS", 1)
    yield


def test_solved_rollout_scores_one_and_carries_its_patch(local_backend: LocalBackend) -> None:
    ended, log = play(ScriptedPolicy((READ, FIX, DONE)), local_backend)
    assert (ended.stop, ended.score.value) == (StopReason.FINAL, 1.0)
    assert "+    return 1" in ended.patch
    observation = log.steps[1].observation
    assert observation
    assert observation.startswith("[tool_result]\nreplaced lib.py")
    assert observation.endswith("[TESTS PASS] 1 passed")


def test_events_come_in_order_and_steps_name_their_parent(local_backend: LocalBackend) -> None:
    _, log = play(ScriptedPolicy((LIST, DONE)), local_backend)
    assert log.events == [
        "start",
        "completion s0000 after None",
        "outcome s0000",
        "completion s0001 after s0000",
        "outcome s0001",
        "done final",
        "end",
    ]
    assert [(step.id, step.parent) for step in log.steps] == [("s0000", None), ("s0001", "s0000")]


def test_conversation_alternates_and_holds_every_answer(local_backend: LocalBackend) -> None:
    speaker = Speaker(Completion(text=LIST))
    _, log = play(speaker, local_backend, TestPolicy.NEVER, RolloutLimits(3))
    messages = speaker.asked[-1][0]
    assert [message.role for message in messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert tuple(messages[:2]) == log.prompt
    assert messages[3].content == log.steps[0].observation == "[tool_result]\nlib.py\ntest_lib.py"


def test_failed_tests_are_shown_after_a_write(local_backend: LocalBackend) -> None:
    ended, log = play(ScriptedPolicy((BREAK, DONE)), local_backend)
    assert ended.score.value == 0.0
    assert log.steps[0].observation
    assert "[TESTS FAIL] 0 passed, 1 failed, 0 not run" in log.steps[0].observation
    assert "assert 2 == 1" in log.steps[0].observation
    assert ended.patch == ""


def test_two_rollouts_of_the_same_script_agree(local_backend: LocalBackend) -> None:
    def shape(log: Log) -> list[tuple[str | None, str]]:
        return [(step.observation, step.digest) for step in log.steps]

    first, second = (play(ScriptedPolicy((LIST, READ, BREAK, FIX, DONE)), local_backend)[1] for _ in range(2))
    assert shape(first) == shape(second)


# ---- why a rollout ends


def test_limit_of_steps_ends_it_scored(local_backend: LocalBackend) -> None:
    ended, log = play(ScriptedPolicy((FIX, LIST, LIST)), local_backend, TestPolicy.FINAL, RolloutLimits(2))
    assert (ended.stop, ended.score.value, len(log.steps)) == (StopReason.MAX_ITERS, 1.0, 2)


def test_script_that_is_over_ends_it_as_exhausted(local_backend: LocalBackend) -> None:
    ended, log = play(ScriptedPolicy((FIX,)), local_backend)
    assert (ended.stop, ended.score.value, len(log.steps)) == (StopReason.EXHAUSTED, 1.0, 1)


@pytest.mark.parametrize("reason", [StopReason.CONTEXT_FULL, StopReason.CONTENT_FILTER, StopReason.BUDGET])
def test_policy_that_cannot_go_on_ends_it_without_an_error(reason: StopReason) -> None:
    ended, _ = play(Speaker(RolloutEnd(reason)), NoSandbox(), TestPolicy.NEVER)
    assert (ended.stop, ended.error) == (reason, "")


def test_loop_ends_it_only_where_that_is_asked_for(local_backend: LocalBackend) -> None:
    script = ScriptedPolicy((LIST,) * 6 + (DONE,))
    ended, log = play(script, local_backend, TestPolicy.NEVER, RolloutLimits(10, stop_on_loop=True))
    assert (ended.stop, len(log.steps)) == (StopReason.LOOP, 4)
    ended, log = play(script, local_backend, TestPolicy.NEVER, RolloutLimits(10))
    assert (ended.stop, len(log.steps)) == (StopReason.FINAL, 7)
    assert [step.loop for step in log.steps] == [False, False, False, True, True, True, False]


def test_reworded_failing_call_is_a_loop(local_backend: LocalBackend) -> None:
    texts = tuple(f"thought {number} " + call_text("read_file", rel_path="nowhere.py") for number in range(3))
    ended, _ = play(ScriptedPolicy(texts), local_backend, TestPolicy.NEVER, RolloutLimits(10, stop_on_loop=True))
    assert ended.stop is StopReason.LOOP


def test_cancelled_rollout_is_interrupted_and_unscored(local_backend: LocalBackend) -> None:
    cancelled = threading.Event()
    cancelled.set()
    ended, log = play(ScriptedPolicy((FIX, DONE)), local_backend, cancelled=cancelled)
    assert (ended.stop, ended.score.value, ended.error) == (StopReason.INTERRUPTED, None, "")
    assert log.events == ["start", "end"]


def test_fault_brought_about_by_the_interruption_is_no_error() -> None:
    cancelled = threading.Event()

    class Last:
        def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
            cancelled.set()
            return Completion(text=FIX)

    ended, _ = play(Last(), NoSandbox(), cancelled=cancelled)
    assert (ended.stop, ended.score.value, ended.error) == (StopReason.INTERRUPTED, None, "")
    assert "+    return 1" in ended.patch


# ---- faults


def test_never_policy_runs_no_test_and_needs_no_sandbox() -> None:
    ended, log = play(ScriptedPolicy((FIX, DONE)), NoSandbox(), TestPolicy.NEVER)
    assert (ended.stop, ended.score.value, ended.score.why) == (StopReason.FINAL, None, "not tested")
    assert log.steps[0].observation == "[tool_result]\nreplaced lib.py (2 lines)"
    assert log.steps[0].report is None


@pytest.mark.parametrize(("test_policy", "steps"), [(TestPolicy.ON_WRITE, 1), (TestPolicy.FINAL, 3)])
def test_sandbox_that_fails_leaves_the_rollout_unscored(test_policy: TestPolicy, steps: int) -> None:
    ended, log = play(ScriptedPolicy((LIST, FIX, DONE)), NoSandbox(), test_policy)
    assert (ended.stop, ended.score.value) == (StopReason.ERROR, None)
    assert ended.error == "SandboxError: no sandbox here"
    assert "+    return 1" in ended.patch
    assert len(log.steps) == steps
    assert log.events[-1] == "end"


def test_service_that_fails_leaves_the_rollout_unscored(local_backend: LocalBackend) -> None:
    ended, log = play(Speaker(InfrastructureError("503")), local_backend)
    assert (ended.stop, ended.score.value, ended.error) == (StopReason.ERROR, None, "InfrastructureError: 503")
    assert log.events == ["start", "end"]


def test_refusal_for_every_conversation_is_raised(local_backend: LocalBackend) -> None:
    with pytest.raises(PolicyRefused):
        play(Speaker(PolicyRefused("wrong key")), local_backend)


def test_bug_is_raised(local_backend: LocalBackend) -> None:
    with pytest.raises(ZeroDivisionError):
        play(Speaker(ZeroDivisionError()), local_backend)


def test_unusable_message_is_answered_with_its_problem() -> None:
    ended, log = play(ScriptedPolicy(("let me think", call_text("rm", path="/"), DONE)), NoSandbox(), TestPolicy.NEVER)
    assert ended.stop is StopReason.FINAL
    assert [step.error for step in log.steps] == [ToolErrorKind.PARSE, ToolErrorKind.PARSE, None]
    assert log.steps[0].observation
    assert "error: not_json" in log.steps[0].observation
    assert log.steps[1].observation
    assert "unknown tool 'rm'" in log.steps[1].observation


def test_completion_cut_off_at_its_token_limit_is_named_truncated() -> None:
    speaker = Speaker(Completion(text="I think that", finish_reason=FinishReason.LENGTH))
    _, log = play(speaker, NoSandbox(), TestPolicy.NEVER, RolloutLimits(1))
    assert log.steps[0].call.problem == "truncated"


# ---- seeds and forks


def test_each_call_has_its_own_seed_derived_from_the_rollout_and_the_step() -> None:
    speaker = Speaker(Completion(text=LIST))
    play(speaker, NoSandbox(), TestPolicy.NEVER, RolloutLimits(3))
    seeds = [sampling.seed for _, sampling in speaker.asked]
    assert seeds == [derived_seed(5, index) for index in range(3)]
    assert len(set(seeds)) == 3


def test_derived_seeds_are_the_same_on_every_machine() -> None:
    assert derived_seed(0, "bitcount", 1) == 828820833
    assert derived_seed(1, "2") != derived_seed("1\0", 2)
    assert all(0 <= derived_seed(number) < 2**31 for number in range(100))


def test_forks_have_the_same_state_and_independent_futures(local_backend: LocalBackend) -> None:
    with RepoEnvironment(TASK, local_backend, TestPolicy.FINAL) as first:
        first.step(Completion(text=READ))
        with first.fork() as second:
            assert second.state is first.state  # a reference: nothing is copied, whatever the tree's size
            before = first.tree.digest
            assert second.tree.digest == before
            second.step(Completion(text=FIX))
            assert first.tree.digest == before
            assert (first.score().value, second.score().value) == (0.0, 1.0)


def test_fork_remembers_what_was_only_partly_read(local_backend: LocalBackend) -> None:
    with RepoEnvironment(TASK, local_backend, TestPolicy.NEVER) as first:
        first.step(Completion(text=call_text("read_file", rel_path="lib.py", max_chars=12)))
        with first.fork() as second:
            outcome = second.step(Completion(text=FIX))
            assert outcome.result
            assert outcome.result.error is ToolErrorKind.PARTLY_SEEN


def test_write_outside_the_editable_files_is_told_and_changes_nothing(local_backend: LocalBackend) -> None:
    cheat = call_text("write_file", rel_path="test_lib.py", content="def test_one(): pass\n")
    ended, log = play(ScriptedPolicy((cheat, DONE)), local_backend, task=replace(TASK, editable=("*.py",)))
    assert ended.score.value == 1.0  # a task that lets its tests be edited has only itself to blame
    ended, log = play(ScriptedPolicy((cheat, DONE)), local_backend)
    assert (ended.score.value, log.steps[0].error) == (0.0, ToolErrorKind.NOT_EDITABLE)
