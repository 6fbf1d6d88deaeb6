"""What an episode is rewarded for: small pure functions, each of which can be trained on or only logged (weight 0).

By default what trains is what evaluates: the episode's own score, 0 or 1. A question's format earns a little beside
it, 3 x 0.03 = 0.09, so that a wrong answer in the right form never comes near a right one in any form; where a group's
answers are all wrong, the form is all that tells them apart, and is learnt. For repair `DENSE` adds the share of the
tests that pass.

The shaped rewards are those that recipes of this kind publish (Unsloth's notebooks of GRPO on GSM8K): exact format +3,
each tag once +0.5 else -0.5, right answer +3 and wrong -1, the right number +1.5. They are changed where they teach
something else than they say, which each one's docstring tells. Reports find a binary reward beating tiered ones: they
are logged, and trained on only where that is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from harness.records import Score
from suites.gsm8k.formats import PromptFormat
from suites.gsm8k.numbers import number_in, same_number


@dataclass(frozen=True)
class Asked:
    """What a question's answer is judged by."""

    gold: str
    form: PromptFormat


@dataclass(frozen=True)
class Outcome:
    """How an episode ended."""

    text: str
    """The last thing that the model said."""
    score: Score
    asked: Asked | None = None
    """Of a question; None for a repair task."""


def exact_format(text: str, form: PromptFormat) -> float:
    """3 for the format and nothing beside it, else 0.

    Published patterns take text before and behind it, and tags in the reasoning: this one is the grader's own.
    """
    return 3.0 if form.read(text).exact else 0.0


def approximate_format(text: str, form: PromptFormat) -> float:
    """0.5 for each tag that stands in the text once, -0.5 for each that does not: from -2 to 2 with four tags.

    Tags in any order count, as published: it is a help on the way to the exact format, and no end.
    """
    return sum(0.5 if text.count(tag) == 1 else -0.5 for tag in form.tags)


def answer(text: str, gold: str, form: PromptFormat) -> float:
    """3 for the right number between its tags, else -1.

    Published: 3 for the same characters, 1.5 but for spaces, 0 for no answer, -0.5 for no number, -1 for a wrong one.
    So `1,000` for 1000 was wrong, and saying nothing better than being wrong: numbers are compared by value here, and
    every miss is the same.
    """
    found = form.read(text).answer
    return 3.0 if found is not None and same_number(found, gold) else -1.0


def number(text: str, gold: str, form: PromptFormat) -> float:
    """1.5 for the right number behind the answer's tag, closed or not, else 0: for answers that were cut off.

    Published patterns take the first digits there: 18 in `$18.50`, 5 in `-5`, 1 in `1,000`. Here a text that states
    several different numbers states none, and the tag is the one that the grader reads: the first behind the reasoning.
    """
    end, opened, closed = form.tags[-3:]
    _, ended, behind = text.partition(end)
    _, began, rest = (behind if ended else text).partition(opened)
    return 1.5 if began and same_number(rest.partition(closed)[0], gold) else 0.0


def near_answer(text: str, gold: str, form: PromptFormat) -> float:
    """0.5 for a wrong number within a tenth of the right one, 0.25 within a fifth, else 0.

    Neither trained on nor logged by default: it pays for answers that the evaluation calls wrong, and a model that
    cannot do a sum learns to guess near it. The published form divides by the gold answer, 0 included, and pays for a
    right answer once more.
    """
    found, wanted = number_in(form.read(text).answer or ""), number_in(gold)
    if found is None or not wanted or found == wanted:
        return 0.0
    off = abs(found / wanted - 1)
    return 0.5 if off <= Fraction(1, 10) else 0.25 if off <= Fraction(1, 5) else 0.0


def passing_tests(score: Score) -> float:
    """The share of a repair task's expected tests that pass, 0 to 1; 0 where something spoke against the report."""
    expected = score.parts.get("tests_expected", 0.0)
    return score.parts["tests_passed"] / expected if expected and not score.why.startswith("tampered") else 0.0


def _of_question(reward: Callable[[str, str, PromptFormat], float]) -> Callable[[Outcome], float | None]:
    return lambda outcome: reward(outcome.text, outcome.asked.gold, outcome.asked.form) if outcome.asked else None


def _of_format(reward: Callable[[str, PromptFormat], float]) -> Callable[[Outcome], float | None]:
    return lambda outcome: reward(outcome.text, outcome.asked.form) if outcome.asked else None


REWARDS: Mapping[str, Callable[[Outcome], float | None]] = {
    "score": lambda outcome: outcome.score.value,
    "exact_format": _of_format(exact_format),
    "approximate_format": _of_format(approximate_format),
    "answer": _of_question(answer),
    "number": _of_question(number),
    "near_answer": _of_question(near_answer),
    "passing_tests": lambda outcome: None if outcome.asked else passing_tests(outcome.score),
}
"""By name. None where a reward does not apply."""

QUESTION: Mapping[str, float] = {
    "score": 1.0,
    "exact_format": 0.03,
    "approximate_format": 0.0,
    "answer": 0.0,
    "number": 0.0,
}
"""The default weights for questions. A reward without a weight is not computed."""
_WEIGHT = re.compile(r"\d+(\.\d+)?(e-?\d+)?")
REPAIR: Mapping[str, float] = {"score": 1.0, "passing_tests": 0.0}
DENSE: Mapping[str, float] = {"score": 1.0, "passing_tests": 0.5}


def reward_weights(text: str) -> dict[str, float]:
    """Weights of a question's rewards, from `NAME=WEIGHT,…`; ValueError, in words fit for a user, where it is none."""
    found = {}
    names = [name for name in REWARDS if name != "passing_tests"]
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if name not in names or not _WEIGHT.fullmatch(value):
            raise ValueError(f"must be NAME=WEIGHT,… with names of {', '.join(names)}")
        found[name] = float(value)
    return found


def rewarded(outcome: Outcome, name: str) -> float | None:
    """The reward of that name. None for every name where the episode has no score: the infrastructure failed, and
    nothing of it may count (TRL leaves a row out of its group only where all its rewards are None).
    """
    return None if outcome.score.value is None else REWARDS[name](outcome)
