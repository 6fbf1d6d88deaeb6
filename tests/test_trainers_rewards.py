"""Rewards: what each pays for, and that nothing else is paid."""

from __future__ import annotations

import pytest

from harness.records import Score
from suites.gsm8k.formats import FORMATS, PromptFormat
from trainers.rewards import (
    DENSE,
    QUESTION,
    REPAIR,
    REWARDS,
    Asked,
    Outcome,
    answer,
    approximate_format,
    exact_format,
    near_answer,
    number,
    passing_tests,
    rewarded,
)

FORMS = list(FORMATS.values())
SOLUTION = FORMATS["solution"]


def _said(reply: str) -> str:
    return SOLUTION.response("so it is", reply)


@pytest.mark.parametrize("form", FORMS)
def test_the_exact_format_earns_3_and_anything_beside_it_nothing(form: PromptFormat) -> None:
    text = form.response("2 + 2 = 4", "4")
    assert exact_format(text, form) == 3
    assert [exact_format(each, form) for each in (f"{text} and", text * 2, "4", "")] == [0, 0, 0, 0]


@pytest.mark.parametrize("form", FORMS)
def test_each_tag_that_stands_once_earns_a_half_and_each_other_costs_one(form: PromptFormat) -> None:
    text, tags = form.response("2 + 2 = 4", "4"), len(form.tags)
    assert approximate_format(text, form) == 0.5 * tags
    assert approximate_format("", form) == -0.5 * tags
    assert approximate_format(text + form.tags[0], form) == 0.5 * (tags - 2)


@pytest.mark.parametrize("form", FORMS)
def test_an_answer_is_right_by_value_and_every_miss_costs_the_same(form: PromptFormat) -> None:
    replies = ("1000", "1,000", " $1000.00 ", "1001", "a thousand and a bit", "")
    earned = [answer(form.response("so", reply), "1000", form) for reply in replies]
    assert earned == [3, 3, 3, -1, -1, -1]
    assert answer("", "1000", form) == -1


def test_a_number_counts_where_its_tag_is_not_closed_any_more() -> None:
    assert number("<SOLUTION>-5", "-5", SOLUTION) == 1.5
    assert number(_said("-5"), "-5", SOLUTION) == 1.5
    assert [number(each, "5", SOLUTION) for each in ("5", "<SOLUTION>-5", "<SOLUTION>5 or 6", "")] == [0, 0, 0, 0]


@pytest.mark.parametrize("form", FORMS)
def test_a_number_in_the_reasoning_is_not_the_one_that_counts(form: PromptFormat) -> None:
    _, opened, closed = form.tags[-3:]
    text = form.response(f"first {opened}4{closed}", "5")
    assert (number(text, "4", form), number(text, "5", form)) == (0, 1.5)
    assert (answer(text, "4", form), answer(text, "5", form)) == (-1, 3)


def test_near_answers_earn_less_and_right_ones_nothing_more() -> None:
    replies = ("100", "105", "90", "85", "79", "-100", "")
    assert [near_answer(_said(each), "100", SOLUTION) for each in replies] == [0, 0.5, 0.5, 0.25, 0, 0, 0]
    assert near_answer(_said("-95"), "-100", SOLUTION) == 0.5
    assert near_answer(_said("1"), "0", SOLUTION) == 0


def test_no_wrong_answer_earns_a_tenth_of_a_right_one_by_default() -> None:
    def total(text: str, value: float) -> float:
        outcome = Outcome(text, Score(value=value), Asked("4", SOLUTION))
        return sum(weight * (rewarded(outcome, name) or 0) for name, weight in QUESTION.items())

    assert total(_said("5"), 0) == pytest.approx(0.09)
    assert total("4", 1) == 1


def test_near_answers_are_not_even_computed_by_default() -> None:
    assert "near_answer" not in QUESTION.keys() | REPAIR.keys() | DENSE.keys()


def test_every_default_names_a_reward_and_repair_trains_on_the_score_alone() -> None:
    assert QUESTION.keys() | REPAIR.keys() | DENSE.keys() <= REWARDS.keys()
    assert {name: weight for name, weight in REPAIR.items() if weight} == {"score": 1.0}


@pytest.mark.parametrize("name", REWARDS)
def test_an_episode_without_a_score_has_no_reward_of_any_name(name: str) -> None:
    assert rewarded(Outcome(_said("4"), Score(value=None, why="the engine died"), Asked("4", SOLUTION)), name) is None
    assert rewarded(Outcome("", Score(value=None)), name) is None


def test_the_share_of_passing_tests_is_of_the_expected_ones_and_0_for_a_tampered_report() -> None:
    parts = {"tests_passed": 3.0, "tests_expected": 4.0}
    assert passing_tests(Score(value=0, parts=parts)) == 0.75
    assert passing_tests(Score(value=0, parts=parts, why="tampered: a canary passed")) == 0
    assert passing_tests(Score(value=0)) == 0


def test_rewards_of_questions_do_not_apply_to_repair_nor_the_other_way_round() -> None:
    parts = {"tests_passed": 1.0, "tests_expected": 4.0}
    repair, question = Outcome("{}", Score(value=0, parts=parts)), Outcome("4", Score(value=0), Asked("4", SOLUTION))
    assert [rewarded(repair, name) for name in ("score", "answer", "exact_format", "passing_tests")] == [
        0,
        None,
        None,
        0.25,
    ]
    assert rewarded(question, "passing_tests") is None
