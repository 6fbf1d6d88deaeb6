"""The environment of a repair task: what the agent sees, what its calls do, and when tests are run.

The state is (messages, file tree) and nothing else; sandboxes only execute. A `RepoEnvironment` serves one rollout.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from types import TracebackType
from typing import Protocol, Self, TypeVar

from harness.errors import Diverged
from harness.grading import graded_tree, run_feedback, run_scoring
from harness.records import Completion, FinishReason, Message, Score, Step, StopReason, Task, TestPolicy, TestReport
from harness.redaction import MASK
from sandboxes.base import Sandbox, SandboxBackend, SandboxError, SandboxNotStarted
from sandboxes.workspace import Workspace
from tools.files import FileState, ToolErrorKind, ToolResult, execute
from tools.protocol import FINAL, RESULT_HEAD, ToolCall, parse

Result = TypeVar("Result")
SANDBOX_ATTEMPTS = 3
SNIPPET_CHARS = 6000
FEEDBACK_SENTENCE = (
    ": after each write the tests are run for you, and the answer ends with [TESTS PASS] or [TESTS FAIL]."
)


@dataclass(frozen=True)
class StepOutcome:
    """What one completion led to. `stop` is set where the environment ends the rollout."""

    call: ToolCall
    result: ToolResult | None = None
    report: TestReport | None = None
    observation: str | None = None
    stop: StopReason | None = None
    digest: str = ""
    tool_seconds: float = 0.0
    test_seconds: float = 0.0


class Environment(Protocol):
    """One episode; single use, and a context manager. `step` and `score` raise SandboxError for infrastructure."""

    def start(self) -> tuple[Message, ...]: ...
    def step(self, completion: Completion) -> StepOutcome: ...
    def follow(self, step: Step) -> StepOutcome:
        """Take a recorded step again, running no tests. Raises Diverged where it does not lead where it led."""

    def score(self) -> Score: ...
    def patch(self) -> str: ...
    def fork(self) -> Self: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class RepoEnvironment:
    """A repair task under the JSON tool protocol."""

    def __init__(
        self, task: Task, backend: SandboxBackend, test_policy: TestPolicy, state: FileState | None = None
    ) -> None:
        self.task, self._backend, self._test_policy = task, backend, test_policy
        self.state = state or FileState(task.tree)
        self._sandbox: Sandbox | None = None
        self._scores: dict[str, Score] = {}

    def start(self) -> tuple[Message, ...]:
        """The system prompt and the goal."""
        feedback = FEEDBACK_SENTENCE if self._test_policy is TestPolicy.ON_WRITE else "."
        goal = _prompt("goal.md").replace("{tests}", ", ".join(self.task.test_args))
        goal = goal.replace("{editable}", ", ".join(self.task.editable)).replace("{goal}", self.task.goal)
        return (
            Message(role="system", content=_prompt("system.md").replace("{feedback}", feedback).strip()),
            Message(role="user", content=goal.strip()),
        )

    def step(self, completion: Completion) -> StepOutcome:
        """Parse a message, carry it out, and after a write run the tests if the test policy says so."""
        call = parse(completion.text, cut_off=completion.finish_reason is FinishReason.LENGTH)
        if call.usable and call.name == FINAL:
            return StepOutcome(call, stop=StopReason.FINAL, digest=self.tree.digest)
        started = time.monotonic()
        result = self._act(call)
        tested = time.monotonic()
        wrote = call.name == "write_file" and call.usable and result.error is None
        report = self._feedback() if wrote and self._test_policy is TestPolicy.ON_WRITE else None
        ended = time.monotonic()
        text = f"{RESULT_HEAD}\n{result.content}" + (f"\n\n{snippet(report)}" if report else "")
        return StepOutcome(call, result, report, text, None, self.tree.digest, tested - started, ended - tested)

    def follow(self, step: Step) -> StepOutcome:
        """Carry out a recorded call again; the test report is the recorded one."""
        call = parse(step.completion.text, cut_off=step.completion.finish_reason is FinishReason.LENGTH)
        stop = StopReason.FINAL if call.usable and call.name == FINAL else None
        result = None if stop else self._act(call)
        text = "" if result is None else f"{RESULT_HEAD}\n{result.content}"
        if self.tree.digest != step.digest or not (step.observation or "").startswith(text):
            masked = (
                " (the log masks a secret in it)" if MASK in step.completion.text + (step.observation or "") else ""
            )
            raise Diverged(
                f"step {step.id} ({call.name or call.problem}) does not lead where it led when it was recorded"
                f"{masked or ': the suite or the tools have changed since'}"
            )
        return StepOutcome(call, result, step.report, step.observation, stop, self.tree.digest)

    def _act(self, call: ToolCall) -> ToolResult:
        if not call.usable:
            form = "Answer with exactly one JSON object of the protocol."
            return ToolResult(content=f"error: {call.problem}: {call.detail}. {form}", error=ToolErrorKind.PARSE)
        self.state, result = execute(self.state, call, self.task.may_edit)
        return result

    @property
    def tree(self) -> Workspace:
        return self.state.workspace

    def _feedback(self) -> TestReport:
        """In the rollout's own sandbox, which is opened when it is first needed and replaced after a fault."""

        def run() -> TestReport:
            if self._sandbox is None:
                self._sandbox = self._backend.open(self.task.resources, self.task.image)
            try:
                return run_feedback(self.task, self.tree, self._sandbox)
            except SandboxError:
                self._close()
                raise

        return _retried(run)

    def score(self) -> Score:
        """The grade of the current tree, taken in a fresh sandbox; unscored where the test policy is `never`.

        A tree that was graded stands: its verdict was the first thing that its sandbox ever ran.
        """
        if self._test_policy is TestPolicy.NEVER:
            return Score(value=None, why="not tested")
        if self.tree.digest not in self._scores:
            self._close()  # or rollouts could hold all the room there is while each waits for more
            self._scores[self.tree.digest] = _retried(self._graded)
        return self._scores[self.tree.digest]

    def _graded(self) -> Score:
        with self._backend.open(self.task.resources, self.task.image) as sandbox:
            return run_scoring(self.task, self.tree, sandbox)[0]

    def patch(self) -> str:
        """The edits so far that count, as a unified diff against the task's tree."""
        graded = graded_tree(self.task, self.tree)[0]
        return graded.diff() if graded.edits != self.task.tree.edits else ""

    def fork(self) -> RepoEnvironment:
        """The same state, an independent future: a reference, whatever the tree's size."""
        return RepoEnvironment(self.task, self._backend, self._test_policy, self.state)

    def _close(self) -> None:
        if self._sandbox is not None:
            self._sandbox.close()
        self._sandbox = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()


def snippet(report: TestReport) -> str:
    """What the agent is told of a test run: counts, then the failures, bounded and free of times and addresses."""
    if report.passed:
        return f"[TESTS PASS] {len(report.expected)} passed"
    failures = {test: outcome for test, outcome in report.outcomes.items() if outcome in ("failed", "error")}
    seen = sum(test in report.outcomes for test in report.expected)
    head = f"[TESTS FAIL] {report.count_passed} passed, {len(failures)} failed, {len(report.expected) - seen} not run"
    parts = [head]
    if report.timed_out:
        parts.append("The run went over its time limit.")
    elif report.stopped_early:
        parts.append("The run stopped at the first failures.")
    parts += [f"{outcome.upper()} {test}\n{report.messages.get(test, '')}" for test, outcome in failures.items()]
    parts += [report.output_tail] if report.output_tail else []
    text = "\n".join(parts)
    return text if len(text) <= SNIPPET_CHARS else text[:SNIPPET_CHARS] + "\n[cut]"


def _retried(run: Callable[[], Result]) -> Result:
    """A sandbox's fault is tried again in a new sandbox; the last one is raised."""
    for attempt in range(SANDBOX_ATTEMPTS):
        try:
            return run()
        except SandboxNotStarted:
            raise
        except SandboxError:
            if attempt + 1 == SANDBOX_ATTEMPTS:
                raise
            time.sleep(0.5 * 2**attempt)
    raise AssertionError("unreachable")


def _prompt(name: str) -> str:
    return (files("harness") / "prompts" / name).read_text(encoding="utf-8")
