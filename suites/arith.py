"""arith: generated word problems with integer answers, in GSM8K's rows; for where that cannot be had, or is too hard.

A problem is a template, its numbers, and names and things that do not matter. A hash of template and numbers says
whether it is for training or for testing: no arithmetic of the test part is seen in training, under any name. `easy` is
the one-step templates with numbers up to 10: a model of a million parameters can learn to do them.
"""

from __future__ import annotations

import hashlib
import operator
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from suites.gsm8k.suite import Question, Split

SIZES: Mapping[Split, int] = {"train": 4000, "test": 500}
TEST_SHARE = 5
"""One in so many combinations of template and numbers is for testing."""
SMALLEST_RESULT = 2
"""Of every step: things are told of in the plural."""
EASY_NUMBERS = range(2, 11)

_OPERATORS: Mapping[str, Callable[[int, int], int]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_NAMES = (
    "Ada Ben Carla Dan Emma Finn Grace Hugo Ines Jack Kira Leo Mia Noah Olga Paul Rosa Sam Tara Umar Vera Will Yara Zoe"
)
_THINGS = "apples balls books buttons cards coins cookies cups eggs flowers marbles nuts pens shells stamps toys"


@dataclass(frozen=True)
class Template:
    """A story over numbers a, b, c. A step is a formula and the sentence that tells of it; x is the first's result."""

    name: str
    numbers: tuple[range, ...]
    story: str
    steps: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Problem:
    """A template with its numbers; `results` are those of its steps, the last of them the answer."""

    template: Template
    numbers: tuple[int, ...]

    @property
    def values(self) -> Mapping[str, int]:
        """The numbers by their letters, then the results as x, y."""
        known = dict(zip("abc", self.numbers, strict=False))
        for letter, (formula, _) in zip("xy", self.template.steps, strict=False):
            known[letter] = _OPERATORS[formula[1]](known[formula[0]], known[formula[2]])
        return known

    @property
    def sound(self) -> bool:
        return min(self.values.values()) >= SMALLEST_RESULT

    @property
    def part(self) -> Split:
        said = f"{self.template.name} {self.numbers}"
        return "test" if hashlib.sha256(said.encode()).digest()[0] % TEST_SHARE == 0 else "train"

    def told(self, who: str, other: str, thing: str) -> tuple[str, str]:
        """The question, and the answer as a row has it."""
        known = self.values
        words = {"who": who, "other": other, "thing": thing} | {letter: str(value) for letter, value in known.items()}
        sentences = [
            sentence.format(work=_work(formula, known[result], known), **words)
            for result, (formula, sentence) in zip("xy", self.template.steps, strict=False)
        ]
        last = "xy"[len(sentences) - 1]
        return self.template.story.format(**words), "\n".join([*sentences, f"#### {known[last]}"])


def _work(formula: str, result: int, known: Mapping[str, int]) -> str:
    """`3 + 4 = <<3+4=7>>7`"""
    left, sign, right = known[formula[0]], formula[1], known[formula[2]]
    return f"{left} {sign} {right} = <<{left}{sign}{right}={result}>>{result}"


_MANY, _FEW = range(5, 61), range(2, 13)

ONE_STEP = (
    Template(
        "gain",
        (_MANY, _MANY),
        "{who} has {a} {thing}. {other} gives {who} {b} more {thing}. How many {thing} does {who} have now?",
        (("a+b", "{who} now has {work} {thing}."),),
    ),
    Template(
        "loss",
        (_MANY, _MANY),
        "{who} has {a} {thing} and gives {b} of them to {other}. How many {thing} does {who} have left?",
        (("a-b", "{who} has {work} {thing} left."),),
    ),
    Template(
        "together",
        (_MANY, _MANY),
        "{who} has {a} {thing} and {other} has {b} {thing}. How many {thing} do they have together?",
        (("a+b", "Together they have {work} {thing}."),),
    ),
    Template(
        "difference",
        (_MANY, _MANY),
        "{who} has {a} {thing} and {other} has {b} {thing}. How many more {thing} does {who} have than {other}?",
        (("a-b", "{who} has {work} more {thing}."),),
    ),
    Template(
        "boxes",
        (_FEW, _FEW),
        "{who} buys {a} boxes of {thing}. Each box holds {b} {thing}. How many {thing} does {who} buy?",
        (("a*b", "The boxes hold {work} {thing}."),),
    ),
    Template(
        "days",
        (_FEW, _FEW),
        "{who} finds {a} {thing} each day. How many {thing} does {who} find in {b} days?",
        (("a*b", "In {b} days {who} finds {work} {thing}."),),
    ),
)
TWO_STEPS = (
    Template(
        "gain_loss",
        (_MANY, _MANY, _MANY),
        "{who} has {a} {thing}, gets {b} more from {other} and then loses {c}. How many {thing} does {who} have now?",
        (("a+b", "First {who} has {work} {thing}."), ("x-c", "Then {work} {thing} are left.")),
    ),
    Template(
        "two_losses",
        (_MANY, _FEW, _FEW),
        "{who} has {a} {thing}, gives {b} to {other} and loses {c}. How many {thing} does {who} have left?",
        (("a-b", "After the gift {who} has {work} {thing}."), ("x-c", "After the loss {work} {thing} are left.")),
    ),
    Template(
        "boxes_and_more",
        (_FEW, _FEW, _MANY),
        "{who} buys {a} boxes with {b} {thing} each, and has {c} {thing} at home. How many {thing} is that in all?",
        (("a*b", "The boxes hold {work} {thing}."), ("x+c", "In all that is {work} {thing}.")),
    ),
    Template(
        "boxes_less",
        (_FEW, _FEW, _MANY),
        "{who} fills {a} bags with {b} {thing} each, and {other} takes {c} of the {thing}. How many {thing} are left?",
        (("a*b", "The bags hold {work} {thing}."), ("x-c", "Then {work} {thing} are left.")),
    ),
    Template(
        "change",
        (_FEW, _FEW, range(20, 151, 5)),
        "{who} buys {a} {thing} for {b} dollars each and pays with {c} dollars. How many dollars does {who} get back?",
        (("a*b", "The {thing} cost {work} dollars."), ("c-x", "{who} gets back {work} dollars.")),
    ),
    Template(
        "times_as_many",
        (range(2, 21), range(2, 7)),
        "{who} has {a} {thing}. {other} has {b} times as many. How many {thing} do {who} and {other} have together?",
        (("a*b", "{other} has {work} {thing}."), ("a+x", "Together they have {work} {thing}.")),
    ),
    Template(
        "more_than",
        (_MANY, _MANY),
        "{who} has {a} {thing}. {other} has {b} more than {who}. How many {thing} do {who} and {other} have together?",
        (("a+b", "{other} has {work} {thing}."), ("a+x", "Together they have {work} {thing}.")),
    ),
    Template(
        "weeks",
        (_FEW, range(2, 8), _FEW),
        "{who} finds {a} {thing} a day on {b} days of each week. How many {thing} does {who} find in {c} weeks?",
        (("a*b", "In a week {who} finds {work} {thing}."), ("x*c", "In {c} weeks that is {work} {thing}.")),
    ),
)


@cache
def arith_questions(part: Split, easy: bool = False) -> tuple[Question, ...]:
    """The questions of a part, always the same; none is twice in it."""
    prefix = "easy-" * easy + part
    rows: dict[str, Question] = {}
    for question, answer in _told(part, easy):
        rows.setdefault(question, Question(f"{prefix}-{len(rows):05}", part, question, answer))
        if len(rows) == SIZES[part]:
            break
    return tuple(rows.values())


def _told(part: Split, easy: bool) -> Iterator[tuple[str, str]]:
    chance = random.Random(f"arith {part} {'easy' if easy else 'all'}")
    for problem in _problems(chance, easy):
        if problem.sound and problem.part == part:
            who, other = chance.sample(_NAMES.split(), 2)
            yield problem.told(who, other, chance.choice(_THINGS.split()))


def _problems(chance: random.Random, easy: bool) -> Iterator[Problem]:
    """Without end."""
    while True:
        template = chance.choice(ONE_STEP if easy else ONE_STEP + TWO_STEPS)
        numbers = (EASY_NUMBERS,) * len(template.numbers) if easy else template.numbers
        yield Problem(template, tuple(map(chance.choice, numbers)))
