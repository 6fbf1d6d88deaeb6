"""Stored rollouts played again without a model: does each step lead where it led when it was recorded?

Every tool call is carried out again, and every test run that the test policy asked for is run again, in a sandbox and
without the verdict cache. The first difference of a rollout is named.

A program under test need not be deterministic itself (a set of objects is in the order of their addresses). Where only
what the tests said differs, they are run again: if they then say something else once more, the step is unsteady, which
is counted and named but is no divergence, and the replay goes on with what was recorded.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from harness.environment import Environment, StepOutcome
from harness.errors import INFRASTRUCTURE, Diverged
from harness.loops import Turn, in_loop
from harness.records import Message, Step, StopReason, TestPolicy, TestReport, Trace
from harness.redaction import MASK, Redactor
from harness.rollout import RolloutLimits

EXCERPT_LINES, EXCERPT_CHARS = 12, 160
_COMPARED_LINES = 100
RERUNS = 3
_TESTED = ("test outcomes", "observation", "score")
_DECIDED = (StopReason.FINAL, StopReason.LOOP, StopReason.MAX_ITERS)
"""The stops that follow from the steps; the others are the policy's, the service's or the user's."""
_MASKED = "the log masks a secret in what was said, so that it cannot be carried out as it was"


@dataclass(frozen=True)
class Difference:
    """Something that is not as it was."""

    what: str
    recorded: str
    now: str

    @property
    def excerpt(self) -> list[str]:
        """What stands at the first difference, as in a unified diff: bounded, and safe to print."""
        pairs = enumerate(zip(self.recorded, self.now, strict=False))
        same = next((at for at, (a, b) in pairs if a != b), min(len(self.recorded), len(self.now)))
        line = self.recorded.count("\n", 0, same)
        column = same - self.recorded.rfind("\n", 0, same) - 1
        old, new = (text.split("\n")[max(0, line - 1) :][:_COMPARED_LINES] for text in (self.recorded, self.now))
        lines = list(islice(difflib.unified_diff(old, new, n=1, lineterm=""), 3, None))  # after `---`, `+++`, `@@`
        shown = [_cut(line, column) for line in lines[:EXCERPT_LINES]]
        return [*shown, "…"] if len(lines) > EXCERPT_LINES else shown


def _cut(line: str, column: int) -> str:
    """A line of a diff, where it is too long only what is around a column; what is no text is escaped."""
    if len(line) > EXCERPT_CHARS:
        start = max(0, min(column - EXCERPT_CHARS // 2, len(line) - EXCERPT_CHARS))
        line = f"{line[0]}{'…' * bool(start)}{line[1 + start :][:EXCERPT_CHARS]}…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)


@dataclass(frozen=True)
class Divergence:
    """A place where a rollout played again is not what was recorded."""

    rollout: str
    step: str
    """The step's id; `start` and `end` for what comes before the first and after the last."""
    differences: tuple[Difference, ...]
    """All that differs there, the likeliest cause first."""

    @property
    def lines(self) -> list[str]:
        """What to tell of it: one line that names it, then an excerpt of the first difference."""
        named = ", ".join(each.what for each in self.differences)
        return [f"{self.rollout} at {self.step}: {named}", *self.differences[0].excerpt]


@dataclass(frozen=True)
class Replayed:
    """What became of one rollout."""

    rollout: str
    steps: int
    """Steps that were carried out again and reproduced."""
    divergence: Divergence | None = None
    unsteady: tuple[Divergence, ...] = ()
    """Places where the tests do not always say the same of the same tree."""
    fault: str = ""
    """The infrastructure's, where it ended the replay."""


def replay(trace: Trace, environment: Environment, limits: RolloutLimits, scored: bool = True) -> Replayed:
    """Play a rollout again as far as it is stored, and compare.

    The steps that a fork shares with others are followed without test runs: they are replayed where they were played.

    Args:
        limits: those of the run.
        scored: take the score again too, where the rollout has one.
    """
    episode = _Replay(trace, environment, limits, scored)
    divergence, fault = None, ""
    try:
        episode.play()
    except _Differs as found:
        divergence = found.place
    except INFRASTRUCTURE as error:
        fault = f"{type(error).__name__}: {error}"
    return Replayed(trace.header.rollout, episode.replayed, divergence, tuple(episode.unsteady), fault)


class _Differs(Exception):
    def __init__(self, place: Divergence) -> None:
        super().__init__(place.step)
        self.place = place


@dataclass
class _Replay:
    trace: Trace
    environment: Environment
    limits: RolloutLimits
    scored: bool
    redact: Redactor = field(default_factory=Redactor)
    turns: list[Turn] = field(default_factory=list)
    stop: StopReason | None = None
    """Why the rollout would end after the last step."""
    unsteady: list[Divergence] = field(default_factory=list)
    replayed: int = 0

    def play(self) -> None:
        said = _conversation(self.environment.start())
        self._compare("start", ("prompt", _conversation(self.trace.header.prompt), said))
        for step in self.trace.steps[: self.trace.shared]:
            self._follow(step)
        for step in self.trace.steps[self.trace.shared :]:
            self._again(step)
        self._end()

    def _compare(self, step: str, *pairs: tuple[str, str, str]) -> None:
        """Raises _Differs for the pairs whose two sides differ."""
        found = self._differences(pairs)
        if found:
            raise _Differs(Divergence(self.trace.header.rollout, step, found))

    def _differences(self, pairs: Iterable[tuple[str, str, str]]) -> tuple[Difference, ...]:
        """The pairs whose two sides differ once secrets are masked, as they are in the log."""
        found = [Difference(what, then, now) for what, then, now in pairs if then != now]
        return tuple(each for each in found if each.recorded != self.redact(each.now))

    def _follow(self, step: Step) -> None:
        try:
            outcome = self.environment.follow(step)
        except Diverged as error:
            place = (Difference("shared step", "as recorded", str(error)),)
            raise _Differs(Divergence(self.trace.header.rollout, step.id, place)) from error
        self._advance(step, outcome)

    def _again(self, step: Step) -> None:
        self._compare(step.id, ("stop", "goes on", self.stop or "goes on"))
        before = self.environment.fork()
        outcome = self.environment.step(step.completion)

        def rerun() -> str:
            with before.fork() as fresh:
                return fresh.step(step.completion).observation or ""

        self._settle(step.id, _compared(step, outcome), outcome.observation or "", rerun, step.completion.text)
        loop = self._advance(step, outcome)
        self._compare(step.id, ("loop", str(step.loop), str(loop)))
        self.replayed += 1

    def _settle(
        self, step: str, pairs: Iterable[tuple[str, str, str]], now: str, rerun: Callable[[], str], said: str = ""
    ) -> None:
        """Raises _Differs where something differs, unless tests said it, and say another thing again.

        Args:
            now: what the tests said.
            rerun: what they say if they are run once more.
        """
        found = self._differences(pairs)
        if not found:
            return
        if all(each.what in _TESTED for each in found) and any(rerun() != now for _ in range(RERUNS)):
            self.unsteady.append(Divergence(self.trace.header.rollout, step, found))
            return
        masked = (Difference("masked secret", "", _MASKED),) if MASK in said else ()
        raise _Differs(Divergence(self.trace.header.rollout, step, (*masked, *found)))

    def _advance(self, step: Step, outcome: StepOutcome) -> bool:
        """Add the turn, as it was recorded; whether it is part of a loop."""
        failed = outcome.result is not None and outcome.result.error is not None
        self.turns.append(Turn(outcome.call.canonical, step.observation or "", failed))
        loop = outcome.observation is not None and in_loop(self.turns)
        full = len(self.turns) >= self.limits.max_iters
        self.stop = outcome.stop or (StopReason.LOOP if loop and self.limits.stop_on_loop else None)
        self.stop = self.stop or (StopReason.MAX_ITERS if full else None)
        return loop

    def _end(self) -> None:
        trace, environment = self.trace, self.environment
        ended = trace.stop if trace.finished else trace.done
        if ended and (self.stop or ended in _DECIDED):
            self._compare("end", ("stop", ended, self.stop or "goes on"))
        if trace.pending or trace.score is None or not trace.finished:
            return
        self._compare("end", ("patch", trace.patch, environment.patch()))
        if self.scored and trace.header.test_policy is not TestPolicy.NEVER:

            def rerun() -> str:
                with environment.fork() as fresh:
                    return str(fresh.score().value)

            then, now = trace.score, environment.score()
            if then.value != now.value:
                pair = ("score", f"{then.value}: {then.why}", f"{now.value}: {now.why}")
                self._settle("end", [pair], str(now.value), rerun)


def _compared(step: Step, outcome: StepOutcome) -> Iterator[tuple[str, str, str]]:
    """What a step is made of, recorded and now; causes come before what follows from them."""
    error = outcome.result.error if outcome.result else None
    truncated = outcome.result is not None and outcome.result.truncated
    yield "parsed call", _plain(step.call.model_dump(mode="json")), _plain(outcome.call.model_dump(mode="json"))
    yield "tool error", step.error or "none", error or "none"
    yield "tree digest", step.digest, outcome.digest
    yield "test outcomes", _outcomes(step.report), _outcomes(outcome.report)
    yield "observation", step.observation or "", outcome.observation or ""
    yield "cut result", str(step.truncated), str(truncated)


def _plain(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def _outcomes(report: TestReport | None) -> str:
    """A test run as text, without what two runs of the same tree may differ in (seconds, names of canaries)."""
    if report is None:
        return "no test run"
    flags = {name: getattr(report, name) for name in ("timed_out", "stopped_early")}
    flags["tampered"] = bool(report.tampered)
    lines = [f"{test}: {outcome}" for test, outcome in sorted(report.outcomes.items())]
    return "\n".join([*lines, *(name for name, value in flags.items() if value)])


def _conversation(messages: Sequence[Message]) -> str:
    return "\n".join(f"[{message.role}]\n{message.content}" for message in messages)
