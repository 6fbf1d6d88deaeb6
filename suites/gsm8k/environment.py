"""A question as an episode: one turn, graded in process, no sandbox."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from harness.environment import StepOutcome
from harness.errors import Diverged
from harness.records import Completion, FinishReason, Message, Score, Step, StopReason, Task, TestPolicy
from suites.gsm8k.formats import PromptFormat
from suites.gsm8k.numbers import number_in
from tools.protocol import FINAL, ParseProblem, ToolCall


class QuestionEnvironment:
    """One question. Whatever the model says ends the episode; its parts of the score are 0 or 1 each:

    correct (the value of the score), answered (an answer that is one number), thinking (reasoning stands between its
    tags), exact (the format, and nothing beside it). Under the test policy `never` it is not graded.
    """

    def __init__(
        self,
        task: Task,
        gold: str,
        form: PromptFormat,
        test_policy: TestPolicy = TestPolicy.FINAL,
        said: Completion | None = None,
    ) -> None:
        self.task, self._gold, self._form, self._test_policy, self._said = task, gold, form, test_policy, said

    def start(self) -> tuple[Message, ...]:
        return self._form.prompt(self.task.goal)

    def step(self, completion: Completion) -> StepOutcome:
        self._said = completion
        return StepOutcome(self._call(completion), stop=StopReason.FINAL)

    def follow(self, step: Step) -> StepOutcome:
        outcome = self.step(step.completion)
        if outcome.call != step.call:
            raise Diverged(f"step {step.id} is read otherwise than when it was recorded: the format has changed since")
        return outcome

    def _call(self, completion: Completion) -> ToolCall:
        """The answer as the final message of a rollout."""
        number = self._form.read(completion.text).number
        if number is not None:
            return ToolCall(name=FINAL, args={"summary": number}, raw=completion.text)
        cut_off = completion.finish_reason is FinishReason.LENGTH
        problem = ParseProblem.TRUNCATED if cut_off else ParseProblem.NO_ANSWER
        return ToolCall(raw=completion.text, problem=problem, detail="there is no answer that is one number")

    def score(self) -> Score:
        """1 for the right number, 0 for another one, or for none."""
        if self._test_policy is TestPolicy.NEVER:
            return Score(value=None, why="not tested")
        if self._said is None:
            return Score(value=0.0, why="nothing was said", parts=dict.fromkeys(PARTS, 0.0))
        response = self._form.read(self._said.text)
        answered = response.number is not None
        right = answered and response.number == str(number_in(self._gold))
        found = (right, answered, bool(response.reasoning), response.exact)
        why = "right" if right else "wrong" if answered else "no answer"
        return Score(value=float(right), why=why, parts=dict(zip(PARTS, map(float, found), strict=True)))

    def patch(self) -> str:
        return ""

    def fork(self) -> QuestionEnvironment:
        return QuestionEnvironment(self.task, self._gold, self._form, self._test_policy, self._said)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


PARTS = ("correct", "answered", "thinking", "exact")
