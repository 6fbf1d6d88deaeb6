"""Candidate edits for generate-and-validate repair: the engine of the `search` baseline policy.

`edits(source, symptoms)` lists the one-edit variants of a file, the most promising first. Operators (see `operators`)
propose changes; they take turns by weight, so that none with many candidates starves the others, and a change in a
function that the failing tests touched comes before one elsewhere. The result depends on nothing but the arguments.
"""

import ast
import threading
import warnings
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from itertools import islice

from harness.policies.operators import OPERATORS, Operator
from harness.policies.operators_kinds import called_name
from harness.policies.operators_trees import Trees
from harness.policies.operators_view import FUNCTIONS, Change, FunctionNode, View

MAX_EDITS = 6_000
MAX_PROPOSED, MAX_PER_OPERATOR = 3_000, 600
"""Changes that one operator may propose, and how many of them, the cheapest, take part."""

PARSING = threading.RLock()
"""Held while a policy thinks: in CPython 3.11, `ast.parse` in several threads can raise SystemError (gh-106905)."""


@dataclass(frozen=True)
class Edit:
    """The replacement of one contiguous span of the source; `start` and `end` count characters."""

    start: int
    end: int
    replacement: str
    operator: str
    line: int
    """1-based line of the first changed character."""

    def apply(self, source: str) -> str:
        return source[: self.start] + self.replacement + source[self.end :]


@dataclass(frozen=True)
class Symptoms:
    """What the failing tests said; everything is optional and only changes the order of the edits."""

    exceptions: frozenset[str] = frozenset()
    """Names of the exceptions raised, such as `IndexError`."""
    timed_out: bool = False
    lines: tuple[int, ...] = ()
    """Lines of this file named in tracebacks."""
    names: frozenset[str] = frozenset()
    """Functions, methods and classes that the failing tests mention."""


def edits(source: str, symptoms: Symptoms = Symptoms()) -> list[Edit]:
    """All one-edit candidates, most promising first, each of another program; empty if `source` does not parse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parsing warns of such things as `x is 1`
        try:
            return _edits(View(source), symptoms)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # MemoryError: the parser's stack is full
            return []


def _edits(view: View, symptoms: Symptoms) -> list[Edit]:
    turns = sorted(_turns(view, Heat(view, symptoms), symptoms), key=lambda turn: turn[0])
    return list(islice(_distinct(view, turns), MAX_EDITS))


class Heat:
    """How far from the failing tests each place of a file is, as a factor on the cost of changing it (1 is closest)."""

    NAMED, CALLED, MODULE, COLD, TRACED = 1.0, 1.25, 1.5, 3.0, 0.6

    def __init__(self, view: View, symptoms: Symptoms) -> None:
        self._view, self._lines = view, set(symptoms.lines)
        functions = [node for node in view.nodes if isinstance(node, FUNCTIONS)]
        factors = {node: self.NAMED for node in functions if self._suspect(node, symptoms.names)}
        self.known = bool(factors)
        for node in list(factors):
            self._spread(node, factors, self.CALLED)
        self._spans = [(view.start(node), view.end(node), factors.get(node, self.COLD)) for node in functions]

    def _suspect(self, node: FunctionNode, names: frozenset[str]) -> bool:
        owner = self._view.parents[node]
        named = node.name in names or (
            isinstance(owner, ast.ClassDef) and node.name == "__init__" and owner.name in names
        )
        return named or any(node.lineno <= line <= (node.end_lineno or 0) for line in self._lines)

    def _spread(self, node: FunctionNode, factors: dict[FunctionNode, float], factor: float) -> None:
        """Warms the functions that a suspect one calls or holds, each step further away a little less."""
        for below in ast.walk(node):
            called = self._view.callables.get(called_name(below))
            inner = below if isinstance(below, FUNCTIONS) else called
            if inner is not None and factor < factors.get(inner, self.COLD) and factor < 2:
                factors[inner] = factor
                self._spread(inner, factors, factor * self.CALLED)

    def at(self, offset: int) -> float:
        """The factor of the innermost function at `offset`, less on a line that a traceback names."""
        if not self.known:
            return 1.0
        factor = self.MODULE
        for start, end, warmth in self._spans:
            if start <= offset <= end + 1:
                factor = warmth
        return factor * (self.TRACED if self._view.line_of(offset) in self._lines else 1.0)


Turn = tuple[float, int, Operator, Change]


def _turns(view: View, heat: Heat, symptoms: Symptoms) -> Iterator[Turn]:
    """All changes with the time at which their operator's turn comes (fair queueing: cost / weight adds up)."""
    view.focus(heat.at)
    for index, operator in enumerate(OPERATORS):
        weight = operator.weight * (2 if _favoured(operator, symptoms) else 1)
        changes = islice(operator.changes(view), MAX_PROPOSED)
        costed = sorted(((change.cost * heat.at(change.start), change) for change in changes), key=lambda pair: pair[0])
        clock = 0.0
        for cost, change in costed[:MAX_PER_OPERATOR]:
            clock += cost / weight
            yield clock, index, operator, change


def _favoured(operator: Operator, symptoms: Symptoms) -> bool:
    return bool(operator.symptoms & symptoms.exceptions) or (symptoms.timed_out and "timeout" in operator.symptoms)


def _distinct(view: View, turns: list[Turn]) -> Iterator[Edit]:
    """The changes that parse and that make a program not seen before."""
    trees = Trees(view)
    seen: set[Hashable] = set()
    for _, _, operator, change in turns:
        key = trees.key(change)
        if key is not None and key not in seen:
            seen.add(key)
            yield Edit(change.start, change.end, change.text, operator.name, view.line_of(change.start))
