"""The order of tasks: passes over all of them, and which ones rest."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from trainers.grpo_curriculum import REST_ROUNDS, TaskOrder
from trainers.grpo_rounds import without_signal

TASKS = [f"t{number}" for number in range(7)]


def _order(curriculum: bool = True, seed: int = 0) -> TaskOrder:
    return TaskOrder(TASKS, seed, curriculum)


def test_every_task_comes_once_in_each_pass_whatever_a_round_takes() -> None:
    order = _order()
    dealt = [task for _ in range(14) for task in order.deal(3)]
    assert all(count == 6 for count in Counter(dealt).values()) and set(dealt) == set(TASKS)


def test_the_tasks_of_a_round_are_different_even_where_a_pass_ends_in_it() -> None:
    order = _order()
    assert all(len(set(order.deal(5))) == 5 for _ in range(20))


def test_the_order_is_the_seeds() -> None:
    assert [_order(seed=3).deal(4) for _ in range(2)] == [_order(seed=3).deal(4)] * 2
    assert _order(seed=3).deal(7) != _order(seed=4).deal(7)


@pytest.mark.parametrize("scores", [[0.0, 0.0], [1.0, 1.0], [1.0, None, 1.0]])
def test_a_task_rests_after_two_groups_without_signal_and_comes_back(scores: list[float | None]) -> None:
    order = _order()
    order.deal(1)
    order.learn("t3", scores)
    assert order.resting == []
    order.learn("t3", scores)
    assert order.resting == ["t3"]
    rounds = ["t3" in order.deal(6) for _ in range(REST_ROUNDS + 2)]
    assert not any(rounds[:REST_ROUNDS]) and any(rounds[REST_ROUNDS:])


def test_a_task_that_is_idle_once_more_after_its_rest_rests_again() -> None:
    order = _order()
    for _ in range(2):
        order.learn("t3", [0.0, 0.0])
    for _ in range(REST_ROUNDS + 1):
        order.deal(1)
    assert order.resting == []
    order.learn("t3", [0.0, 0.0])
    assert order.resting == ["t3"]


@pytest.mark.parametrize("between", [[0.0, 1.0], [0.4, 0.4]])
def test_a_group_with_signal_or_partial_scores_wakes_a_task(between: list[float | None]) -> None:
    order = _order()
    for scores in ([0.0, 0.0], between, [0.0, 0.0]):
        order.learn("t3", scores)
    assert order.resting == []


def test_a_group_that_has_no_score_tells_nothing() -> None:
    order = _order()
    for scores in ([0.0, 0.0], [None, None], [0.0, 0.0]):
        order.learn("t3", scores)
    assert order.resting == ["t3"]


def test_where_too_few_are_awake_those_that_rested_longest_are_taken() -> None:
    order = _order()
    for task in TASKS[:5]:
        order.deal(1)
        order.learn(task, [1.0, 1.0])
        order.learn(task, [1.0, 1.0])
    assert set(order.deal(4)) == {"t5", "t6", "t0", "t1"}


def test_without_a_curriculum_nothing_rests() -> None:
    order = _order(curriculum=False)
    for _ in range(3):
        order.learn("t3", [0.0, 0.0])
    assert order.resting == []


def test_an_order_goes_on_from_its_state_as_it_would_have() -> None:
    order, again = _order(), _order()
    for _ in range(5):
        for task in order.deal(3):
            order.learn(task, [0.0, 0.0])
    again.restore(json.loads(json.dumps(order.state())))
    assert [again.deal(3) for _ in range(9)] == [order.deal(3) for _ in range(9)]


def test_a_training_in_which_no_group_had_a_signal_is_told_of() -> None:
    silent, half = {"groups/without_signal": 4.0}, {"groups/without_signal": 3.0}
    assert without_signal([silent, silent], 4).startswith("WARNING: in no group did rollouts earn different rewards")
    assert without_signal([silent, half], 4) == ""
