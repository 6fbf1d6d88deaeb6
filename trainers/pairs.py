"""Preference pairs that tests have verified: at one state, an action whose continuations score more than another's.

A pair is chosen and measured by different plays. Each action's plays are split in two halves; the first ranks the
actions, and the best is set against the worst, the second best against the second worst, and so on; only the second
half, which had no part in that choice, says what the pair is worth. (The best of eight equal actions looks better than
the worst by luck, but the luck does not last.) Each action is in one pair at most and each pair is measured once: to
swap the halves and try again would give luck a second chance, and all pairs of eight would nearly all be about the
same few plays.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.records import ForkPoint, Record
from trainers.values import Estimate, Finished, Play, PolicyKey, ValueTree, estimate, p_better, p_majority

Source = Literal["fork", "merge", "protocol", "loop"]
Kind = Literal["solved", "effort", "protocol", "loop"]

MARGIN = 0.2
MIN_CONFIDENCE = 0.9
CHOOSING_CONFIDENCE = 0.82
"""How sure the choosing halves must be. Measured with eight actions, two of them worth 0.7 and six 0.3, sixteen plays
each and confidence 0.9: against no demand it takes the wrong pairs from 9% to 6% and costs 3% of the right ones."""
EFFORT_SHARE, EFFORT_STEPS = 0.2, 2
"""By how much of the larger number, and by how many steps, effort must differ."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Candidate:
    """One of the actions that were sampled at a forked state."""

    action: str
    """The assistant message."""
    malformed: bool
    """Not strictly one protocol object."""
    rollout: str
    step: str
    """Where that step is stored."""
    samples: int
    """How many draws gave this action."""
    plays: tuple[Play, ...]
    """Continuations in the order in which they were played; steps and tokens count from the forked state."""
    loop: bool = False
    """The step was flagged as part of a loop."""


@dataclass(frozen=True)
class Fork:
    """A state, and what was sampled there."""

    task: str
    rollout: str
    step: str | None
    """The state is the one after this step; None is the one after the prompt."""
    candidates: tuple[Candidate, ...]


class Side(Record):
    """One side of a pair: where its action is stored, and what the measuring plays gave."""

    rollout: str
    step: str
    k: int = 0
    """Measured continuations; 0 where nothing was measured."""
    wins: float = 0.0
    """The sum of their scores."""
    runs: int = 0
    """Different rollouts among them: fewer than k where the action ended the rollout, which was then played once."""
    value: float | None = None
    mean_steps: float | None = None
    mean_tokens: float | None = None


class Pair(Record):
    """A preference between two actions at one state."""

    id: str
    """Of source, task, state and the two texts: the same on every machine."""
    task: str
    source: Source
    kind: Kind
    """solved: the values differ. effort: both always solve the task, and one needs fewer steps or tokens. protocol and
    loop: nothing was measured."""
    state: ForkPoint
    chosen: Side
    rejected: Side
    chosen_text: str
    rejected_text: str
    rejected_malformed: bool = False
    confidence: float | None = None
    """solved: P(the chosen side's score is the higher) under Beta(1,1) priors. effort: P(it needs less more often than
    not), the same prior. None where nothing was measured."""

    @property
    def margin(self) -> float | None:
        """The difference of the measured values."""
        if self.chosen.value is None or self.rejected.value is None:
            return None
        return self.chosen.value - self.rejected.value


def make_pair(
    source: Source,
    kind: Kind,
    task: str,
    state: ForkPoint,
    sides: tuple[Side, Side],
    texts: tuple[str, str],
    rejected_malformed: bool,
    confidence: float | None = None,
) -> Pair:
    """A pair with its id; sides and texts are (chosen, rejected)."""
    parts = (source, task, state.rollout, str(state.step), *texts)
    digest = hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()
    return Pair(
        id=digest[:20],
        task=task,
        source=source,
        kind=kind,
        state=state,
        chosen=sides[0],
        rejected=sides[1],
        chosen_text=texts[0],
        rejected_text=texts[1],
        rejected_malformed=rejected_malformed,
        confidence=confidence,
    )


@dataclass(frozen=True)
class _Half:
    """What half of an action's plays came to."""

    estimate: Estimate
    plays: tuple[Play, ...]
    """Independent ones, all scored."""


@dataclass(frozen=True)
class _Option:
    """An action at a state with its two halves."""

    action: str
    malformed: bool
    rollout: str
    step: str
    choosing: _Half
    measuring: _Half

    @property
    def rank(self) -> tuple[float, float, float, str]:
        """Smallest for the best: value, then fewer steps, then fewer tokens; ties by the text."""
        found = self.choosing.estimate
        return -found.value, found.steps, found.tokens, self.action

    @property
    def side(self) -> Side:
        found = self.measuring.estimate
        return Side(
            rollout=self.rollout,
            step=self.step,
            k=found.count,
            wins=found.wins,
            runs=len({play.rollout for play in self.measuring.plays}),
            value=found.value,
            mean_steps=found.steps,
            mean_tokens=found.tokens,
        )


def fork_pairs(fork: Fork, margin: float = MARGIN, min_confidence: float = MIN_CONFIDENCE) -> list[Pair]:
    """The pairs of one fork: at most one for every two candidates.

    A candidate needs two scored plays. One that ends the episode has the same result each time: repeat its play.
    """
    options = []
    for each in fork.candidates:
        scored = tuple(play for play in each.plays if play.value is not None)
        choosing, measuring = _half(scored[1::2]), _half(scored[::2])
        if choosing and measuring:
            options.append(_Option(each.action, each.malformed, each.rollout, each.step, choosing, measuring))
    state = ForkPoint(rollout=fork.rollout, step=fork.step)
    return _pairs("fork", fork.task, state, options, margin, min_confidence)


def _half(plays: tuple[Play, ...]) -> _Half | None:
    found = estimate(plays)
    return _Half(found, plays) if found else None


def _pairs(
    source: Source, task: str, state: ForkPoint, options: Sequence[_Option], margin: float, min_confidence: float
) -> list[Pair]:
    """The best is set against the worst, and inwards from there."""
    ranked = sorted(options, key=lambda option: option.rank)
    pairs = []
    for better, worse in zip(ranked[: len(ranked) // 2], reversed(ranked), strict=False):
        judged = None if better.malformed else _solved(better, worse, margin) or _effort(better, worse)
        if judged and judged[1] >= min_confidence - _ROUNDING:
            sides, texts = (better.side, worse.side), (better.action, worse.action)
            pairs.append(make_pair(source, judged[0], task, state, sides, texts, worse.malformed, judged[1]))
    return pairs


def _solved(better: _Option, worse: _Option, margin: float) -> tuple[Kind, float] | None:
    if _confidence(better.choosing, worse.choosing) < CHOOSING_CONFIDENCE:
        return None
    gap = better.measuring.estimate.value - worse.measuring.estimate.value
    enough = gap > _ROUNDING and gap >= margin - _ROUNDING
    return ("solved", _confidence(better.measuring, worse.measuring)) if enough else None


def _confidence(better: _Half, worse: _Half) -> float:
    first, second = better.estimate, worse.estimate
    return p_better(first.wins, first.count, second.wins, second.count)


def _effort(better: _Option, worse: _Option) -> tuple[Kind, float] | None:
    """Only where every play solved the task: fewer steps to a failure are no virtue."""
    halves = (better.choosing, worse.choosing, better.measuring, worse.measuring)
    unit = _effort_unit(halves[0].estimate, halves[1].estimate)
    if unit is None or any(half.estimate.value < 1 - _ROUNDING for half in halves):
        return None
    if _effort_unit(halves[2].estimate, halves[3].estimate) != unit:
        return None
    needs = [
        (getattr(ours, unit), getattr(theirs, unit))
        for ours, theirs in zip(better.measuring.plays, worse.measuring.plays, strict=False)
    ]
    return "effort", p_majority(sum(ours < theirs for ours, theirs in needs), sum(a > b for a, b in needs))


def _effort_unit(better: Estimate, worse: Estimate) -> Literal["steps", "tokens"] | None:
    """What the first needs clearly less of; tokens decide only where steps do not."""
    enough = max(EFFORT_STEPS, EFFORT_SHARE * max(better.steps, worse.steps))
    saved = worse.steps - better.steps
    if abs(saved) >= enough:
        return "steps" if saved > 0 else None
    tokens_saved = worse.tokens - better.tokens
    return "tokens" if tokens_saved > 0 and tokens_saved >= EFFORT_SHARE * worse.tokens else None


def merge_pairs(
    rollouts: Iterable[Finished], margin: float = MARGIN, min_confidence: float = MIN_CONFIDENCE
) -> Iterator[Pair]:
    """The pairs of states that several finished rollouts share, within one task and one policy.

    Forked rollouts may be among them, with their parents. An action's value is backed up node by node; rollouts that
    share what they did after the action stay in the same half.
    """
    groups: dict[tuple[str, PolicyKey], dict[str, Finished]] = defaultdict(dict)
    for each in rollouts:
        groups[each.task, each.policy][each.play.rollout] = each
    for (task, _), group in sorted(groups.items()):
        for state, depth, actions in _shared(group):
            some = next(iter(actions.values()))[0]
            where = ForkPoint(rollout=some.play.rollout, step=None)
            if depth:
                where = ForkPoint(rollout=_origin(group, some, depth - 1), step=some.visits[depth - 1].step)
            options = [_merged(group, state, depth, passing) for passing in actions.values()]
            yield from _pairs("merge", task, where, [each for each in options if each], margin, min_confidence)


def _shared(group: dict[str, Finished]) -> Iterator[tuple[str, int, dict[str, list[Finished]]]]:
    """States where several actions were taken: (state, depth, rollouts by action)."""
    states: dict[tuple[str, int], dict[str, list[Finished]]] = defaultdict(lambda: defaultdict(list))
    for _, each in sorted(group.items()):
        for depth, visit in enumerate(each.visits):
            states[visit.state, depth][visit.action].append(each)
    for (state, depth), actions in states.items():
        if len(actions) > 1:
            yield state, depth, actions


def _origin(group: dict[str, Finished], rollout: Finished, depth: int) -> str:
    """The rollout that sampled this step itself: the given one, or the ancestor that it inherited the step from."""
    while rollout.inherited > depth and rollout.parent is not None:
        if rollout.parent not in group:
            return rollout.parent
        rollout = group[rollout.parent]
    return rollout.play.rollout


def _merged(group: dict[str, Finished], state: str, depth: int, passing: Sequence[Finished]) -> _Option | None:
    families: dict[str, list[Finished]] = defaultdict(list)
    for each in passing:
        families[_origin(group, each, depth + 1)].append(each)
    scored = [(origin, each) for origin, each in sorted(families.items()) if _any_scored(each)]
    choosing, measuring = (_merged_half(state, depth, half) for half in (scored[1::2], scored[::2]))
    if not (choosing and measuring):
        return None
    visit = passing[0].visits[depth]
    step_of = _origin(group, passing[0], depth)
    return _Option(visit.action, visit.malformed, step_of, visit.step, choosing, measuring)


def _any_scored(rollouts: Sequence[Finished]) -> bool:
    return any(each.play.value is not None for each in rollouts)


def _merged_half(state: str, depth: int, families: Sequence[tuple[str, list[Finished]]]) -> _Half | None:
    if not families:
        return None
    first = families[0][1][0]
    tree = ValueTree(first.policy)
    for _, family in families:
        for each in family:
            tree.add(each, depth)
    found = tree.action_value(state, first.visits[depth].action)
    own = tuple(
        each.play
        for origin, family in families
        for each in family
        if each.play.rollout == origin and each.play.value is not None
    )
    return _Half(found, own) if found else None


def limit_malformed(pairs: Sequence[Pair], share: float = 0.2) -> list[Pair]:
    """Drop pairs with a malformed rejected side until they are at most `share` of what is left.

    The surest stay, then those with the smaller id; pairs without a confidence go first. The order is kept.
    """
    malformed = [pair for pair in pairs if pair.rejected_malformed]
    others = len(pairs) - len(malformed)
    room = len(malformed) if share >= 1 else math.floor(share * others / (1 - share) + _ROUNDING)
    malformed.sort(key=lambda pair: (-(pair.confidence or 0.0), pair.id))
    kept = {pair.id for pair in malformed[:room]}
    return [pair for pair in pairs if not pair.rejected_malformed or pair.id in kept]
