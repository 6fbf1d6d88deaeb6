"""`search`: a repair policy without a model, the baseline that every model should beat.

It reads the files that may be edited and their tests, of a large repository those that the tests lead to (see
`reading`), writes one file back unchanged to learn what fails, then tries one-edit candidates (see `mutation`) until
the driver's feedback says that the tests pass. Where no single edit is enough, it goes on from candidates that made
more tests pass. It uses the tools and the feedback that any policy has.

A search is written as a generator of messages; `SearchPolicy` is nevertheless a function of the conversation and the
seed: it keeps running searches only as a memo, and plays an unknown conversation again from its start. At a temperature
above 0 the next candidate is drawn from the first of the ranking, and a conversation played again draws what it says.
"""

from __future__ import annotations

import ast
import itertools
import math
import random
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from harness.errors import RolloutEnd
from harness.policies.mutation import PARSING, Edit, Symptoms, edits
from harness.policies.reading import read_repository
from harness.policies.scripted import AtOnce
from harness.policy import Policy, PolicyInfo
from harness.records import Completion, Message, Sampling, StopReason, Task
from tools.protocol import call_text, final_text

MAX_ITERS = 700
"""The default budget of steps; nearly every step is one candidate."""
FIRST_PASS, LATER_PASS, LATER_BASES = 450, 100, 2
"""Candidates on the original tree before others are built on; candidates on, and number of, those others."""
CHUNKS = (48, 24, 12)
"""Candidates in a row on the most suspected file, on the second, on any other."""

WINDOW, SPREAD = 32, 8.0
"""At temperature T the candidate of rank i among the next WINDOW is drawn with a weight of exp(-i / (SPREAD * T))."""

_Search = Generator[str, str, None]
_Sources = dict[str, str]


@dataclass
class Dice:
    """What decides which candidate comes next."""

    temperature: float = 0.0
    seed: int = 0
    said: str | None = None
    """The message that the conversation holds here: the choice was made when it was said."""

    def choose(self, messages: Sequence[Callable[[], str]]) -> int:
        """The index of one of the candidates, given the messages that they would be."""
        if self.said is not None:
            return next((index for index, message in enumerate(messages) if message() == self.said), 0)
        if not self.temperature:
            return 0
        weights = [math.exp(-index / (SPREAD * self.temperature)) for index in range(len(messages))]
        return random.Random(self.seed).choices(range(len(messages)), weights)[0]


@dataclass(frozen=True)
class Verdict:
    """What an observation says of the tests."""

    passed: bool
    count: int
    """Tests seen to pass before the run stopped."""
    text: str


@dataclass
class _Improvements:
    """Candidates that made more tests pass than the tree they started from."""

    baseline: int
    found: list[tuple[int, int, _Sources]] = field(default_factory=list)

    def note(self, verdict: Verdict, sources: _Sources) -> None:
        if verdict.count > self.baseline:
            self.found.append((-verdict.count, len(self.found), sources))

    def best(self) -> list[_Sources]:
        return [sources for _, _, sources in sorted(self.found, key=lambda entry: entry[:2])[:LATER_BASES]]


class _Solved(Exception):
    """The tests pass."""


def search(goal: str, dice: Dice) -> _Search:
    """The messages of one search; it is sent the observations."""
    sources, tests = yield from read_repository(goal)
    try:
        yield from _repair(sources, tests, dice)
        summary = "no candidate made the tests pass"
    except _Solved as solved:
        summary = str(solved)
    yield final_text(summary)


def _repair(sources: _Sources, tests: _Sources, dice: Dice) -> _Search:
    if not sources:
        return
    path, content = next(iter(sources.items()))
    start = _verdict((yield call_text("write_file", rel_path=path, content=content)))
    if start is None:  # the driver runs no tests for us: there is nothing to go by
        return
    improvements = _Improvements(start.count)
    candidates = _Candidates(sources, _candidates(sources, start, tests), dice)
    yield from _try(sources, candidates, FIRST_PASS, improvements)
    for better in improvements.best():
        switch = [path for path in sources if better[path] != sources[path]]
        found = yield call_text("write_file", rel_path=switch[0], content=better[switch[0]])
        verdict = _verdict(found)
        if verdict:
            deeper = _Improvements(verdict.count)
            deeper_ones = _Candidates(better, _candidates(better, verdict, tests), dice)
            yield from _try(better, deeper_ones, LATER_PASS, deeper)
            for path in switch:
                yield call_text("write_file", rel_path=path, content=sources[path])
    yield from _try(sources, candidates, MAX_ITERS, improvements)


@dataclass
class _Candidates:
    """Candidates in the order of their ranking, or drawn from the first of them."""

    sources: _Sources
    ranked: Iterator[tuple[str, Edit]]
    dice: Dice
    window: list[tuple[str, Edit]] = field(default_factory=list)

    def next(self) -> tuple[str, Edit | None]:
        """A path and the edit to be tried in it, None where there are no more."""
        chance = self.dice.temperature or self.dice.said is not None
        self.window += itertools.islice(self.ranked, max(0, (WINDOW if chance else 1) - len(self.window)))
        if not self.window:
            return "", None
        messages = [partial(self.message, path, edit) for path, edit in self.window]
        return self.window.pop(self.dice.choose(messages))

    def message(self, path: str, edit: Edit) -> str:
        return call_text("write_file", rel_path=path, content=edit.apply(self.sources[path]))


def _try(sources: _Sources, candidates: _Candidates, count: int, improvements: _Improvements) -> _Search:
    """Write up to `count` candidates, one at a time, and leave the files as they were."""
    written = ""
    for _ in range(count):
        path, edit = candidates.next()
        if written and written != path:
            yield call_text("write_file", rel_path=written, content=sources[written])
        if edit is None:
            return
        written, changed = path, edit.apply(sources[path])
        verdict = _verdict((yield call_text("write_file", rel_path=path, content=changed)))
        if verdict and verdict.passed:
            raise _Solved(f"line {edit.line} of {path} was wrong and is changed ({edit.operator}); the tests pass")
        if verdict:
            improvements.note(verdict, {**sources, path: changed})
    if written:
        yield call_text("write_file", rel_path=written, content=sources[written])


def _candidates(sources: _Sources, verdict: Verdict, tests: _Sources) -> Iterator[tuple[str, Edit]]:
    """Edits of all files, in turns: the files that the failures name first, and with longer turns."""
    names = _names_used(verdict, tests)
    ranked = sorted(sources, key=lambda path: -_suspicion(path, sources[path], verdict, names))
    queues = {path: iter(edits(sources[path], symptoms_of(verdict, path, names))) for path in ranked}
    while queues:
        for rank, path in enumerate(list(queues)):
            for _ in range(CHUNKS[min(rank, len(CHUNKS) - 1)]):
                edit = next(queues[path], None)
                if edit is None:
                    del queues[path]
                    break
                yield path, edit


def symptoms_of(verdict: Verdict, path: str, names: frozenset[str]) -> Symptoms:
    """What the failures say about one file."""
    raised = re.findall(r"^E\s+(\w*(?:Error|Exception|Exit|Interrupt|Iteration))\b", verdict.text, re.MULTILINE)
    asserted = {"AssertionError"} if re.search(r"^E\s+assert\b", verdict.text, re.MULTILINE) else set()
    lines = re.findall(rf"^{re.escape(path)}:(\d+): in ", verdict.text, re.MULTILINE)
    return Symptoms(
        exceptions=frozenset(raised) | asserted,
        timed_out="Timeout: " in verdict.text or "went over its time limit" in verdict.text,
        lines=tuple(sorted({int(line) for line in lines})),
        names=names,
    )


def _suspicion(path: str, source: str, verdict: Verdict, names: frozenset[str]) -> int:
    in_tracebacks = len(re.findall(rf"^{re.escape(path)}:\d+: in ", verdict.text, re.MULTILINE))
    defined = set(re.findall(r"^\s*(?:def|class) (\w+)", source, re.MULTILINE))
    return 3 * in_tracebacks + len(defined & names)


def _names_used(verdict: Verdict, tests: Mapping[str, str]) -> frozenset[str]:
    """The names that the failing tests mention."""
    failing = re.findall(r"^(?:FAILED|ERROR) (\S+?\.py)(?:::(\S+))?", verdict.text, re.MULTILINE)
    wanted = {(path, name.rpartition("::")[2].partition("[")[0]) for path, name in failing}
    used: set[str] = set()
    for path, name in wanted:
        try:
            module = ast.parse(tests.get(path, ""))
        except SyntaxError:
            continue
        for node in ast.walk(module):
            if isinstance(node, ast.FunctionDef) and node.name == name:
                used |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
                used |= {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}
    return frozenset(used)


def _verdict(observation: str) -> Verdict | None:
    found = re.search(r"^\[TESTS (PASS|FAIL)\] (\d+) passed", observation, re.MULTILINE)
    if not found:
        return None
    return Verdict(found[1] == "PASS", int(found[2]), observation[found.start() :])


class SearchPolicy:
    """The next message of the search that this conversation belongs to."""

    def __init__(self, kept: int = 64) -> None:
        self._kept = kept
        self._running: OrderedDict[tuple[str, ...], tuple[_Search, Dice]] = OrderedDict()
        self._lock = threading.Lock()

    def complete(self, messages: Sequence[Message], sampling: Sampling) -> Completion:
        said = tuple(message.content for message in messages)
        with self._lock:
            running, dice = self._running.pop(said[:-1], None) or (None, Dice())
        dice.temperature = sampling.temperature
        try:
            with PARSING:
                running = running or _played(said, dice)
                dice.seed, dice.said = sampling.seed, None
                text = next(running) if len(said) == 2 else running.send(said[-1])
        except StopIteration:
            raise RolloutEnd(StopReason.EXHAUSTED) from None
        with self._lock:
            self._running[(*said, text)] = running, dice
            while len(self._running) > self._kept:
                self._running.popitem(last=False)
        return Completion(text=text)


def _played(said: tuple[str, ...], dice: Dice) -> _Search:
    """A search brought to the end of a conversation, whatever the assistant said in it; it awaits the last message."""
    running = search(said[1], dice)
    for number, text in enumerate(said[2::2]):
        dice.said = text
        if number:
            running.send(said[1 + 2 * number])
        else:
            next(running)
    return running


@dataclass(frozen=True)
class SearchSource(AtOnce):
    """The search policy, the same for every task."""

    info: PolicyInfo = PolicyInfo("search", trusted=True, default_max_iters=MAX_ITERS)
    shared: SearchPolicy = field(default_factory=SearchPolicy)

    def policy(self, task: Task, rollout_index: int) -> Policy:
        return self.shared
