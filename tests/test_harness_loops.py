"""Loops by OpenHands' rules, on canonical actions."""

from __future__ import annotations

import pytest

from harness.loops import Turn, in_loop


def turns(text: str) -> list[Turn]:
    """Each letter is an action with its own observation; upper case failed."""
    return [Turn(letter.lower(), f"answer to {letter}", letter.isupper()) for letter in text]


@pytest.mark.parametrize("text", ["aaaa", "xyaaaa", "AAA", "bAAA", "ababab", "xababab", "AbAbAb"])
def test_repetition_is_a_loop(text: str) -> None:
    assert in_loop(turns(text))


@pytest.mark.parametrize(
    "text", ["", "a", "aaa", "aaab", "AA", "AAb", "aAA", "ababa", "abab", "abcabc", "abcabcabc", "aababab"[:-1], "AAAb"]
)
def test_less_than_the_rules_is_no_loop(text: str) -> None:
    assert not in_loop(turns(text))


def test_same_action_with_new_observations_is_no_loop() -> None:
    assert not in_loop([Turn("read", f"answer {number}", False) for number in range(6)])


def test_same_failing_action_is_a_loop_whatever_it_is_told() -> None:
    assert in_loop([Turn("read", f"error {number}", True) for number in range(3)])


def test_alternation_needs_the_same_observations() -> None:
    changing = [Turn("ab"[number % 2], f"answer {number}", False) for number in range(8)]
    assert not in_loop(changing)
