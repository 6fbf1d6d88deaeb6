"""Suites of questions with one number as the answer: what `gsm8k` and `arith` share."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from harness.errors import UsageError
from harness.records import Task, TestPolicy
from sandboxes.base import SandboxBackend
from sandboxes.workspace import MappingTree, Workspace
from suites.gsm8k.environment import QuestionEnvironment
from suites.gsm8k.formats import DEFAULT_FORMAT, FORMATS, PromptFormat
from suites.gsm8k.numbers import number_in

GOLD_MARK = "####"
Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
_ANNOTATION = re.compile(r"<<[^<>]*>>")


@dataclass(frozen=True)
class Question:
    """A row of the data: `answer` is the reasoning, then `#### ` and the gold answer."""

    id: str
    split: Split
    question: str
    answer: str

    @property
    def gold(self) -> str:
        """What stands behind the last mark."""
        return self.answer.rpartition(GOLD_MARK)[2].strip()

    @property
    def reasoning(self) -> str:
        """The worked solution, without the annotations for a calculator."""
        return _ANNOTATION.sub("", self.answer.rpartition(GOLD_MARK)[0]).strip()


def checked(question: Question) -> Question:
    """Raises UsageError for a row whose gold answer is no number: nothing could be right."""
    if GOLD_MARK not in question.answer or number_in(question.gold) is None:
        raise UsageError(f"{question.id}: the answer has no number after {GOLD_MARK}: {question.answer[-60:]!r}")
    return question


@dataclass(frozen=True)
class QuestionSuite:
    """Some questions, put in one format, in a fixed order. No sandbox is needed: answers are graded in process."""

    name: str
    """As `suites.base.load` takes it, format included."""
    questions: tuple[Question, ...]
    form: PromptFormat = field(default_factory=lambda: FORMATS[DEFAULT_FORMAT])
    slice_of: str = ""
    """The version of the suite that these are a slice of, which is theirs too: a run on a slice is a run on some of its
    tasks. Empty: this is all of it."""

    @cached_property
    def version(self) -> str:
        return self.slice_of or self.version_of([each.id for each in self.questions])

    def version_of(self, tasks: Sequence[str]) -> str:
        chosen = [self.by_id[task] for task in tasks]
        said = "\0".join(f"{each.id}\0{each.question}\0{each.answer}" for each in chosen)
        return hashlib.sha256(said.encode()).hexdigest()[:12]

    @cached_property
    def by_id(self) -> Mapping[str, Question]:
        return {each.id: each for each in self.questions}

    def tasks(self) -> Sequence[Task]:
        return self._tasks

    @cached_property
    def _tasks(self) -> list[Task]:
        return [self.task(each) for each in self.questions]

    def task(self, question: Question) -> Task:
        """Without its answer."""
        nothing = Workspace(MappingTree({}))
        return Task(question.id, self.name, question.question, nothing, (), (), (), raw_prompt=self.form.raw)

    def prepare(self, tasks: Sequence[Task], workers: int, say: Callable[[str], None]) -> Mapping[str, str]:
        return {}

    def environment(self, task: Task, backend: SandboxBackend | None, test_policy: TestPolicy) -> QuestionEnvironment:
        return QuestionEnvironment(task, self.by_id[task.id].gold, self.form, test_policy)

    def split_of(self, task: Task) -> Split:
        return self.by_id[task.id].split

    def group_of(self, task: Task) -> str:
        return ""

    def reference(self, task: Task) -> Workspace | None:
        return None

    def slice(self, start: int, stop: int, seed: int) -> QuestionSuite:
        """The questions from place `start` up to `stop` of a seeded order: those of a smaller size are in a larger.

        Raises:
            UsageError: there are not so many.
        """
        if stop > len(self.questions):
            raise UsageError(f"{self.name} has {len(self.questions)} questions, not {stop}")
        order = random.Random(seed).sample(self.questions, len(self.questions))
        return QuestionSuite(self.name, tuple(order[start:stop]), self.form, self.version)
