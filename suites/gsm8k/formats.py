"""How a question is put and how an answer is read: one prompt format for prompts, training rows and grading alike.

solution   a system prompt, then the question; <start_working_out>…<end_working_out><SOLUTION>…</SOLUTION>
r1         text that the model goes on with, after "Assistant: <think>"; … </think> <answer>…</answer>
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from harness.records import Message
from suites.gsm8k.numbers import number_in

SOLUTION_PROMPT = (
    "Solve the problem that the user states. First reason step by step between <start_working_out> and "
    "<end_working_out>. Then write the answer, one number and nothing else, between <SOLUTION> and </SOLUTION>."
)
R1_PROMPT = (
    "The user asks the assistant a question, and the assistant answers it. The assistant first thinks the question "
    "through, and only then gives the answer. The thoughts stand between <think> and </think>, the answer, one number "
    "and nothing else, between <answer> and </answer>.\n\nUser: {question}\nAssistant: <think>"
)


@dataclass(frozen=True)
class Response:
    """What stands in a model's text."""

    reasoning: str
    """Between the tags of the reasoning; empty where there is none but tags, or where it does not end."""
    answer: str | None
    """Between the tags of the answer; None where there is none."""
    exact: bool
    """The text has the format and nothing beside it: every tag once, in order, no text between or around them."""

    @cached_property
    def number(self) -> str | None:
        """The answer as a number in one form, None where it is not exactly one number."""
        found = None if self.answer is None else number_in(self.answer)
        return None if found is None else str(found)


class PromptFormat(Protocol):
    """A way to put questions."""

    @property
    def name(self) -> str: ...
    @property
    def raw(self) -> bool:
        """The prompt is text that the model goes on with: no chat template is applied."""

    @property
    def tags(self) -> tuple[str, ...]:
        """What a response must hold once each, in this order."""

    def prompt(self, question: str) -> tuple[Message, ...]: ...
    def response(self, reasoning: str, answer: str) -> str:
        """The text that a model is to write: the target of training."""

    def read(self, text: str) -> Response:
        """Whatever the text, never an error."""


@dataclass(frozen=True)
class SolutionFormat:
    """`solution`. The answer is the first one after the reasoning, or the first of all where no reasoning ends."""

    name = "solution"
    raw = False
    tags = ("<start_working_out>", "<end_working_out>", "<SOLUTION>", "</SOLUTION>")

    def prompt(self, question: str) -> tuple[Message, ...]:
        return (Message(role="system", content=SOLUTION_PROMPT), Message(role="user", content=question))

    def response(self, reasoning: str, answer: str) -> str:
        begin, end, opened, closed = self.tags
        return f"{begin}\n{reasoning.strip()}\n{end}\n{opened}{answer}{closed}"

    def read(self, text: str) -> Response:
        begin, end, opened, closed = self.tags
        before, ended, after = text.partition(end)
        _, began, reasoning = before.partition(begin)
        answer = _between(after if ended else text, opened, closed)
        exact = text.lstrip().startswith(begin) and _is_exact(text, self.tags) and bool(reasoning.strip() and answer)
        return Response(_without(reasoning, self.tags) if began and ended else "", answer, exact)


@dataclass(frozen=True)
class R1Format:
    """`r1`. The prompt has opened the thoughts already; what a base model writes after its answer is not read."""

    name = "r1"
    raw = True
    tags = ("</think>", "<answer>", "</answer>")

    def prompt(self, question: str) -> tuple[Message, ...]:
        return (Message(role="user", content=R1_PROMPT.replace("{question}", question)),)

    def response(self, reasoning: str, answer: str) -> str:
        return f" {reasoning.strip()} </think> <answer>{answer}</answer>"

    def read(self, text: str) -> Response:
        thoughts, ended, after = text.partition("</think>")
        answer = _between(after if ended else text, "<answer>", "</answer>")
        exact = "<think>" not in text and _is_exact(text, self.tags) and bool(thoughts.strip() and answer)
        return Response(_without(thoughts, ("<think>", *self.tags)) if ended else "", answer, exact)


def _between(text: str, opened: str, closed: str) -> str | None:
    _, began, rest = text.partition(opened)
    answer, ended, _ = rest.partition(closed)
    return answer.strip() if began and ended else None


def _is_exact(text: str, tags: Sequence[str]) -> bool:
    """Each tag stands there once, in this order; nothing is between reasoning and answer, nothing behind the answer."""
    *_, end, opened, closed = tags
    between = text.partition(end)[2].partition(opened)[0]
    once = all(text.count(tag) == 1 for tag in tags)
    return once and not between.strip() and text.rstrip().endswith(closed)


def _without(text: str, tags: Sequence[str]) -> str:
    """A text of nothing but tags is none; any other is left as it is."""
    bare = text
    for tag in tags:
        bare = bare.replace(tag, "")
    return text.strip() if bare.strip() else ""


FORMATS: Mapping[str, PromptFormat] = {"solution": SolutionFormat(), "r1": R1Format()}
DEFAULT_FORMAT = "solution"
