"""What an action is worth: values backed up a tree of rollouts, and how sure one can be that one is above another.

A state is (messages, file tree), so a rollout can be forked at any step, and the same state can be met by several
rollouts. Three rules keep the values honest. A node's value is the mean over its actions, weighted by how often the
policy chose them when it was free to: a subtree that was forked more often does not weigh more (leaf counts would let
it). Only rollouts of one policy are backed up together. A play without a score counts nowhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

_PRECISION = 1e-17


@dataclass(frozen=True)
class Play:
    """A rollout that was played to its end.

    `steps` and `tokens` are the policy's, counted from one point for all plays that are compared (the forked state, or
    the prompt).
    """

    rollout: str
    value: float | None
    """The score, 0..1; None is unscored and never counts."""
    steps: int
    tokens: int


class PolicyKey(NamedTuple):
    """What makes two rollouts samples of one policy."""

    name: str
    model: str
    temperature: float


class Visit(NamedTuple):
    """One step on a rollout's way: what was said in which state."""

    state: str
    """Hash of (messages, tree) before the step."""
    action: str
    """The assistant message."""
    malformed: bool
    """Not strictly one protocol object."""
    step: str
    """Id of the step in the rollout that sampled it."""
    loop: bool = False
    """The step was flagged as part of a loop."""


@dataclass(frozen=True)
class Finished:
    """A finished rollout with its whole way from the prompt, inherited steps included."""

    task: str
    policy: PolicyKey
    visits: tuple[Visit, ...]
    play: Play
    parent: str | None = None
    """The rollout it was forked from."""
    inherited: int = 0
    """How many of its first steps were the parent's: the policy did not choose them anew."""
    samples: int = 1
    """How often its first own step was drawn at the forked state (several draws may give one action; 0: it was put
    there by hand). All later steps count once. Continuations of one action after the first inherit that step too."""

    def draws(self, depth: int) -> int:
        """How often this rollout sampled its step at `depth`; 0 for an inherited one."""
        return 0 if depth < self.inherited else self.samples if depth == self.inherited else 1


@dataclass(frozen=True)
class Estimate:
    """Mean results of what follows a state or an action."""

    value: float
    steps: float
    tokens: float
    count: int
    """Independent continuations behind it: never more than the policy's own draws, however often those were forked."""

    @property
    def wins(self) -> float:
        return round(min(self.value, 1.0) * self.count, 9)


def estimate(plays: Iterable[Play]) -> Estimate | None:
    """Plain means over independent plays; None where none has a score."""
    return _blend([(1, found) for play in plays if (found := _single(play))])


def _single(play: Play) -> Estimate | None:
    return None if play.value is None else Estimate(play.value, play.steps, play.tokens, 1)


def _blend(parts: Sequence[tuple[int, Estimate]]) -> Estimate | None:
    """The mean of estimates by weight. A part counts at most as often as it was drawn."""
    total = sum(weight for weight, _ in parts)
    if not total:
        return None
    return Estimate(
        sum(weight * part.value for weight, part in parts) / total,
        sum(weight * part.steps for weight, part in parts) / total,
        sum(weight * part.tokens for weight, part in parts) / total,
        sum(min(weight, part.count) for weight, part in parts),
    )


@dataclass
class Edge:
    """An action at a node."""

    samples: int = 0
    """How often the policy chose it, free to choose."""
    arrivals: dict[str, int] = field(default_factory=dict)
    """How often it led to which state: one state, unless an observation is not deterministic."""


@dataclass
class Node:
    """A state: the actions that were taken there, and the plays that ended there."""

    depth: int
    edges: dict[str, Edge] = field(default_factory=dict)
    ends: list[Play] = field(default_factory=list)


class ValueTree:
    """The rollouts of one policy, joined where they share states."""

    def __init__(self, policy: PolicyKey) -> None:
        self.policy = policy
        self._nodes: dict[str, Node] = {}

    def add(self, finished: Finished, start: int = 0) -> None:
        """Join a rollout to the tree, from its step number `start` on. Order does not matter.

        Raises ValueError for a rollout of another policy.
        """
        if finished.policy != self.policy:
            raise ValueError(f"values of {finished.policy} cannot be backed up in a tree of {self.policy}")
        visits = finished.visits
        for depth in range(start, len(visits)):
            visit = visits[depth]
            following = visits[depth + 1].state if depth + 1 < len(visits) else f"end of {visit.state} {visit.action}"
            edge = self._node(visit.state, depth).edges.setdefault(visit.action, Edge())
            edge.samples += finished.draws(depth)
            edge.arrivals[following] = edge.arrivals.get(following, 0) + (depth >= finished.inherited)
        if start < len(visits):
            self._node(following, len(visits)).ends.append(finished.play)

    def _node(self, state: str, depth: int) -> Node:
        return self._nodes.setdefault(state, Node(depth))

    def values(self) -> dict[str, Estimate]:
        """Estimates of all states that have one, backed up node by node from the ends (without recursion: a rollout
        may have a thousand steps)."""
        known: dict[str, Estimate] = {}
        for state, node in sorted(self._nodes.items(), key=lambda item: -item[1].depth):
            parts = [(1, found) for play in node.ends if (found := _single(play))]
            parts += [(edge.samples, found) for edge in node.edges.values() if (found := _edge_value(edge, known))]
            if blended := _blend(parts):
                known[state] = blended
        return known

    def action_value(self, state: str, action: str) -> Estimate | None:
        """The estimate of an action at a state; None where nothing under it has a score.

        Raises KeyError for an action that was never taken there.
        """
        return _edge_value(self._nodes[state].edges[action], self.values())


def _edge_value(edge: Edge, known: dict[str, Estimate]) -> Estimate | None:
    """With one successor the action's value is the successor's, and each free draw there is one continuation of it."""
    parts = [(max(times, 1), known[state]) for state, times in edge.arrivals.items() if state in known]
    return parts[0][1] if len(parts) == 1 else _blend(parts)


def p_better(wins_a: float, n_a: int, wins_b: float, n_b: int) -> float:
    """P(p_a > p_b) for independent Beta(1 + wins, 1 + n - wins) posteriors, exact to rounding.

    A score between 0 and 1 is a win of that size, so wins need not be whole. p_better(a, b) + p_better(b, a) is 1.

    Source: J. D. Cook, "Exact Calculation of Beta Inequalities" (M. D. Anderson Cancer Center, 2005): with
    h(a, b, c, d) = B(a + c, b + d) / (B(a, b) B(c, d)) and g = P(Beta(a, b) > Beta(c, d)), g(a, b, c, d) is
    g(a, b + 1, c, d) + h / b and g(a, b, c + 1, d) + h / c. Both steps in turn give a series of positive terms, which
    fall by a factor of 4 in the end.

    Raises ValueError where wins are not in 0..n.
    """
    if not (0 <= wins_a <= n_a and 0 <= wins_b <= n_b):
        raise ValueError(f"wins must be in 0..n: {wins_a} of {n_a}, {wins_b} of {n_b}")
    a, b = (float(wins_a), n_a), (float(wins_b), n_b)
    if a == b:
        return 0.5
    return _beats(*a, *b) if a < b else 1.0 - _beats(*b, *a)


@lru_cache(maxsize=100_000)
def _beats(wins_a: float, n_a: int, wins_b: float, n_b: int) -> float:
    a, b, c, d = 1 + wins_a, 1 + n_a - wins_a, 1 + wins_b, 1 + n_b - wins_b
    total = 0.0
    while True:
        term = _overlap(a, b, c, d) / b + _overlap(a, b + 1, c, d) / c
        total += term
        if term <= _PRECISION and a + d < b + c:
            return min(total, 1.0)
        b, c = b + 1, c + 1


def _overlap(a: float, b: float, c: float, d: float) -> float:
    return math.exp(_log_beta(a + c, b + d) - _log_beta(a, b) - _log_beta(c, d))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def p_majority(wins: int, losses: int) -> float:
    """P(theta > 1/2) for theta ~ Beta(1 + wins, 1 + losses): that one side wins more often than not (ties left out).

    The upper tail of a Beta with whole parameters is a binomial tail (Abramowitz and Stegun 26.5.24). Raises ValueError
    for negative counts.
    """
    if wins < 0 or losses < 0:
        raise ValueError(f"counts cannot be negative: {wins}, {losses}")
    trials = wins + losses + 1
    below: int = sum(math.comb(trials, count) for count in range(wins + 1))
    return below / (1 << trials)
