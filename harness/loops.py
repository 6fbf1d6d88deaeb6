"""Loop detection on canonical actions and observations, by OpenHands' rules (its stuck detector)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """One step, as far as loops are concerned."""

    action: str
    """Canonical tool and arguments: a reworded message is the same action."""
    observation: str
    failed: bool


def in_loop(turns: Sequence[Turn]) -> bool:
    """Is the last turn part of a loop? The same action and observation four times in a row, the same failing action
    three times in a row, or two turns in alternation over the last six.
    """
    return _same(turns, 4) or _failing(turns, 3) or _alternating(turns)


def _same(turns: Sequence[Turn], count: int) -> bool:
    last = turns[-count:]
    return len(last) == count and len({(turn.action, turn.observation) for turn in last}) == 1


def _failing(turns: Sequence[Turn], count: int) -> bool:
    last = turns[-count:]
    return len(last) == count and all(turn.failed for turn in last) and len({turn.action for turn in last}) == 1


def _alternating(turns: Sequence[Turn]) -> bool:
    last = [(turn.action, turn.observation) for turn in turns[-6:]]
    return len(last) == 6 and last[0] != last[1] and last[0::2] == [last[0]] * 3 and last[1::2] == [last[1]] * 3
