"""Which steps of a rollout may be trained, and why the others may not.

A rollout is solved when its grade (by the version of the suite that was asked for) is 1; unscored is not solved.

**Loops.** Where a step was flagged as part of a loop, the loop is the unbroken run of steps up to it with the same
action, or with the two actions that take turns (canonical tool and arguments). The first step of each action stays; all
its repeats go, those before the flag too.

**Point of no return.** A gain is a step whose tree passes more expected tests than any tree before it. In a rollout
that is not solved, all steps after its last gain go; where there is no gain, all from its first write on. A rollout of
which nothing at all was measured (no test run, no step score, no score) keeps its steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from harness.records import Score, Step, StepScore, Trace
from harness.redaction import MASK
from trainers.formats import is_action


class Drop(StrEnum):
    """Why something did not become a row."""

    TEST_SPLIT = "of the test split"
    UNSCORED = "not scored"
    UNSOLVED = "not solved"
    MALFORMED = "not strictly one protocol object"
    MASKED = "a secret is masked in it"
    TOOL_ERROR = "the tool answered with an error"
    LOOP = "repeat in a loop"
    NO_RETURN = "after the point of no return"
    NO_GAIN = "write without a known gain of passing tests"
    DUPLICATE = "same messages and action as another row"
    TOO_LONG = "over --max-tokens"
    LIMIT = "over --limit-per-task"
    BROKEN = "context that trainers refuse (an empty message, for example)"
    NOTHING = "no step left to train"
    WEIGHTS = "TRL cannot leave one of its messages untrained"
    NO_PATH = "no solving path can be made of its steps"
    SAME_PATH = "same solving path as another rollout"
    UNVERIFIED = "its solving path does not score 1 when replayed"
    NOT_REPLAYED = "the infrastructure failed while its solving path was replayed"


@dataclass(frozen=True)
class Rules:
    """What a rollout and a step must be to be trained. A message that is not strictly one protocol object never is."""

    require_success: bool = True
    require_valid_tool_ok: bool = True
    """The result was no error."""
    improving_only: bool = False
    """Of the writes only gains."""
    suite_version: str | None = None
    """Whose grades and step scores count; None: of the run's own version."""

    def solved(self, trace: Trace) -> bool:
        score = self.grade(trace)
        return score is not None and score.value == 1

    def grade(self, trace: Trace) -> Score | None:
        return trace.grade(self.suite_version)


@dataclass
class TreeScores:
    """Passing tests by tree, as step scores noted them, for the trees of one task.

    A fork's notes say nothing of the steps that it shares: what its parent's said is kept here.
    """

    passed: dict[str, int] = field(default_factory=dict)
    """By digest."""
    base: int | None = None
    """On the task's own tree."""

    def add(self, scores: dict[str | None, StepScore]) -> None:
        for score in scores.values():
            if score.passed is None:
                continue
            self.passed[score.digest] = score.passed
            if score.step is None:
                self.base = score.passed


def rollout_drop(trace: Trace, rules: Rules) -> Drop | None:
    """Why no step of a rollout is trained; None where they may be."""
    if not rules.require_success or rules.solved(trace):
        return None
    score = rules.grade(trace)
    return Drop.UNSCORED if score is None or score.value is None else Drop.UNSOLVED


def step_drops(trace: Trace, rules: Rules, scores: TreeScores) -> list[Drop | None]:
    """One verdict per step: None where it may be trained."""
    solved = rules.solved(trace)
    repeats = loop_repeats(trace.steps)
    gained = gains(trace, scores, rules.grade(trace)) if rules.improving_only or not solved else []
    kept = len(trace.steps) if solved else point_of_no_return(trace, gained, rules.grade(trace), scores)
    verdicts: list[Drop | None] = []
    for index, step in enumerate(trace.steps):
        drop = _own_drop(step, rules)
        if drop is None and index >= kept:
            drop = Drop.NO_RETURN
        if drop is None and index in repeats:
            drop = Drop.LOOP
        if drop is None and rules.improving_only and is_write(step) and not gained[index]:
            drop = Drop.NO_GAIN
        verdicts.append(drop)
    return verdicts


def _own_drop(step: Step, rules: Rules) -> Drop | None:
    if step.call.problem is not None or not is_action(step.completion.text):
        return Drop.MALFORMED
    if MASK in step.completion.text:
        return Drop.MASKED
    return Drop.TOOL_ERROR if rules.require_valid_tool_ok and step.error is not None else None


def is_write(step: Step) -> bool:
    """A write that was carried out."""
    return step.call.name == "write_file" and step.call.usable and step.error is None


def loop_repeats(steps: Sequence[Step]) -> frozenset[int]:
    """The indices of the steps that repeat what their loop had done before (see above)."""
    found: set[int] = set()
    for index in (number for number, step in enumerate(steps) if step.loop):
        actions = {step.call.canonical for step in steps[max(0, index - 1) : index + 1]}
        first = index
        while first and steps[first - 1].call.canonical in actions:
            first -= 1
        seen: set[str] = set()
        for number in range(first, index + 1):
            action = steps[number].call.canonical
            found |= {number} if action in seen else set()
            seen.add(action)
    return frozenset(found)


def _counts(trace: Trace, scores: TreeScores, score: Score | None) -> list[int | None]:
    """Passing tests on the tree after each step, None where it is not known.

    By step scores if any tree of the rollout has one, else by the test runs after writes and the final score. A
    feedback run ends at its first failures, so its count is a lower bound.
    """
    if any(step.digest in scores.passed for step in trace.steps):
        return [scores.passed.get(step.digest) for step in trace.steps]
    found = [step.report.count_passed if step.report and not step.report.tampered else None for step in trace.steps]
    last = max((index for index, step in enumerate(trace.steps) if is_write(step)), default=None)
    if last is not None and score is not None and score.value is not None and "tests_passed" in score.parts:
        found[last] = int(score.parts["tests_passed"])
    return found


def gains(trace: Trace, scores: TreeScores, score: Score | None) -> list[bool]:
    """Per step: its tree passes more expected tests than any tree before it.

    While no tree before it is known, a tree is a gain only if it passes all tests (the task's own tree does not).
    """
    counts = _counts(trace, scores, score)
    by_scores = any(step.digest in scores.passed for step in trace.steps)
    best, found = scores.base if by_scores else None, []
    for count in counts:
        enough = len(trace.header.expected_tests) if best is None else best + 1
        found.append(count is not None and count >= enough)
        best = count if best is None else max(best, count or 0)
    return found


def point_of_no_return(trace: Trace, gained: Sequence[bool], score: Score | None, scores: TreeScores) -> int:
    """How many steps of a rollout that is not solved are kept (see above)."""
    if any(gained):
        return len(gained) - list(reversed(gained)).index(True)
    known = (score is not None and score.value is not None) or any(
        count is not None for count in _counts(trace, scores, score)
    )
    first_write = next((index for index, step in enumerate(trace.steps) if is_write(step)), len(trace.steps))
    return first_write if known else len(trace.steps)
