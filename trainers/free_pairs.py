"""Preference pairs that need no tests: a strict message over a malformed one, and a way out over a loop.

Both compare actions at one state (messages and tree): after the driver's complaint about a malformed message the state
is another one, so the corrected answer is no sibling of the malformed one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from harness.records import ForkPoint
from tools.protocol import FINAL, ToolCall, arguments, call_text, final_text, parse
from trainers.pairs import Candidate, Fork, Pair, Side, make_pair
from trainers.values import Finished, PolicyKey


def free_forks(rollouts: Iterable[Finished]) -> Iterator[Fork]:
    """The states of finished rollouts that protocol and loop pairs can come from, as forks without plays.

    States are told apart by task and policy, as everywhere. Inherited steps are their parent's. Each action stands
    once, with the number of draws that gave it.
    """
    states: dict[tuple[str, PolicyKey, str], dict[str, Candidate]] = defaultdict(dict)
    before: dict[tuple[str, PolicyKey, str], tuple[str, str | None]] = {}
    for each in rollouts:
        for depth, visit in enumerate(each.visits):
            if not each.draws(depth):
                continue
            place = (each.task, each.policy, visit.state)
            rollout = each.play.rollout if depth != each.inherited or each.parent is None else each.parent
            before.setdefault(place, (rollout, each.visits[depth - 1].step if depth else None))
            known = states[place].get(visit.action) or Candidate(
                visit.action, visit.malformed, each.play.rollout, visit.step, 0, (), visit.loop
            )
            states[place][visit.action] = replace(known, samples=known.samples + each.draws(depth))
    for place, actions in states.items():
        if any(each.malformed or each.loop for each in actions.values()):
            yield Fork(place[0], *before[place], tuple(actions.values()))


def protocol_pairs(fork: Fork) -> list[Pair]:
    """For each malformed action its strict form, where its call could be read, else a strict action of the same state.

    The strict form is set against the raw message in the same place: both sides name the step of the raw message.
    """
    strict = [each for each in fork.candidates if not each.malformed]
    pairs = []
    for bad in (each for each in fork.candidates if each.malformed):
        if (repaired := strict_text(parse(bad.action))) is not None:
            pairs.append(_pair("protocol", fork, replace(bad, action=repaired), bad))
        elif strict:
            pairs.append(_pair("protocol", fork, _favourite(strict), bad))
    return pairs


def strict_text(call: ToolCall) -> str | None:
    """The message that says strictly what a repaired call meant; None for a call that was strict or not read."""
    if not call.repaired:
        return None
    if call.name == FINAL:
        return final_text(str(call.args.get("summary", "")))
    return call_text(call.name, **arguments(call).model_dump(exclude_unset=True))


def loop_pairs(fork: Fork) -> list[Pair]:
    """For each action that was part of a loop, a strict action of the same state that is another call and no loop."""
    pairs = []
    for bad in (each for each in fork.candidates if each.loop):
        repeated = parse(bad.action).canonical
        ways_out = [
            each
            for each in fork.candidates
            if not (each.loop or each.malformed) and parse(each.action).canonical != repeated
        ]
        if ways_out:
            pairs.append(_pair("loop", fork, _favourite(ways_out), bad))
    return pairs


def _favourite(candidates: Sequence[Candidate]) -> Candidate:
    """The one that the policy says most often; ties by the text."""
    return min(candidates, key=lambda each: (-each.samples, each.action))


def _pair(source: Literal["protocol", "loop"], fork: Fork, chosen: Candidate, rejected: Candidate) -> Pair:
    sides = (Side(rollout=chosen.rollout, step=chosen.step), Side(rollout=rejected.rollout, step=rejected.step))
    state, texts = ForkPoint(rollout=fork.rollout, step=fork.step), (chosen.action, rejected.action)
    return make_pair(source, source, fork.task, state, sides, texts, rejected.malformed)
