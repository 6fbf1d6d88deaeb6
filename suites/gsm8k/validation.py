"""A question suite proves itself: the worked solution, written as its format asks, scores 1, and silence scores 0."""

from __future__ import annotations

from harness.records import Completion, Task, TestPolicy
from suites.gsm8k.suite import QuestionSuite
from suites.validate import Validation

ANSWER = ("answer",)


def validated(suite: QuestionSuite, task: Task) -> Validation:
    """What the grader says of the solution, which must have the exact format too, and of an empty text."""
    question = suite.by_id[task.id]
    solution, silence = suite.form.response(question.reasoning, question.gold), ""
    scores = []
    for text in (solution, silence):
        environment = suite.environment(task, None, TestPolicy.FINAL)
        environment.step(Completion(text=text))
        scores.append(environment.score())
    right, empty = scores
    said = "" if right.parts["exact"] else "the solution has not the format"
    return Validation(task.id, right.value, empty.value, expected=ANSWER, failing=ANSWER, repeats=1, error=said)
