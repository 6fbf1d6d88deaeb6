"""Values and probabilities against hand-computed numbers, other formulas and simulation."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.values import Estimate, Finished, Play, PolicyKey, ValueTree, Visit, estimate, p_better, p_majority

POLICY = PolicyKey("model", "m", 0.7)
RESULTS = st.integers(0, 40).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
FRACTIONS = st.integers(0, 20).flatmap(lambda n: st.tuples(st.floats(0, n), st.just(n)))


def log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def closed_form(wins_a: int, n_a: int, wins_b: int, n_b: int) -> float:
    """E. Miller, "Formulas for Bayesian A/B Testing" (2014), formula 6, for P(p_a > p_b)."""
    a, b, c, d = 1 + wins_b, 1 + n_b - wins_b, 1 + wins_a, 1 + n_a - wins_a
    terms = (log_beta(a + i, d + b) - math.log(d + i) - log_beta(1 + i, d) - log_beta(a, b) for i in range(c))
    return sum(map(math.exp, terms))


def integral(wins_a: float, n_a: int, wins_b: float, n_b: int, cells: int = 20_000) -> float:
    """The density of p_a times the distribution of p_b, by the midpoint rule."""
    points = [(cell + 0.5) / cells for cell in range(cells)]

    def density(wins: float, n: int) -> list[float]:
        norm = log_beta(1 + wins, 1 + n - wins)
        return [math.exp(wins * math.log(x) + (n - wins) * math.log(1 - x) - norm) / cells for x in points]

    total = below = 0.0
    for mass_a, mass_b in zip(density(wins_a, n_a), density(wins_b, n_b), strict=True):
        total += mass_a * (below + mass_b / 2)
        below += mass_b
    return total


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0), (0, 0), 1 / 2),
        ((1, 1), (0, 0), 2 / 3),  # the mean of Beta(2, 1)
        ((1, 1), (0, 1), 5 / 6),
        ((2, 2), (0, 2), 19 / 20),
        ((2, 2), (1, 2), 4 / 5),
    ],
)
def test_p_better_of_small_counts_is_as_by_hand(a: tuple[int, int], b: tuple[int, int], expected: float) -> None:
    assert p_better(*a, *b) == pytest.approx(expected, abs=1e-14)


@given(RESULTS, RESULTS)
def test_p_better_agrees_with_the_closed_form_for_whole_wins(a: tuple[int, int], b: tuple[int, int]) -> None:
    assert p_better(*a, *b) == pytest.approx(closed_form(*a, *b), abs=1e-11)


@pytest.mark.parametrize(
    ("a", "b"), [((2.5, 4), (0.75, 3)), ((0.5, 1), (0.5, 8)), ((13.2, 16), (9.9, 16)), ((0.1, 12), (3.7, 4))]
)
def test_p_better_of_fractional_wins_agrees_with_numeric_integration(
    a: tuple[float, int], b: tuple[float, int]
) -> None:
    assert p_better(*a, *b) == pytest.approx(integral(*a, *b), abs=1e-6)


def test_p_better_agrees_with_simulation() -> None:
    rng = random.Random(3)
    draws = [rng.betavariate(1 + 9, 1 + 3) > rng.betavariate(1 + 6.5, 1 + 4.5) for _ in range(40_000)]
    assert p_better(9, 12, 6.5, 11) == pytest.approx(sum(draws) / len(draws), abs=0.01)


@given(FRACTIONS, FRACTIONS)
def test_p_better_and_its_reverse_add_up_to_one(a: tuple[float, int], b: tuple[float, int]) -> None:
    assert p_better(*a, *b) + p_better(*b, *a) == pytest.approx(1, abs=1e-12)
    assert 0 <= p_better(*a, *b) <= 1


@given(RESULTS, RESULTS)
def test_p_better_rises_with_a_further_win_and_falls_with_a_further_loss(
    a: tuple[int, int], b: tuple[int, int]
) -> None:
    wins, n = a
    assert p_better(wins, n + 1, *b) - 1e-12 <= p_better(*a, *b) <= p_better(wins + 1, n + 1, *b) + 1e-12


def test_p_better_of_many_plays_stays_exact() -> None:
    assert p_better(600, 1000, 560, 1000) == pytest.approx(closed_form(600, 1000, 560, 1000), abs=1e-9)
    assert p_better(1000, 1000, 0, 1000) == pytest.approx(1)


@pytest.mark.parametrize("wrong", [(-1, 2, 0, 1), (3, 2, 0, 1), (0, 1, 2, 1)])
def test_p_better_refuses_impossible_counts(wrong: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="wins must be"):
        p_better(*wrong)


@given(st.integers(0, 30), st.integers(0, 30))
def test_p_majority_is_the_beta_tail_above_one_half(wins: int, losses: int) -> None:
    cells = 2000
    points = [0.5 + 0.5 * (cell + 0.5) / cells for cell in range(cells)]
    norm = log_beta(1 + wins, 1 + losses)
    tail = sum(math.exp(wins * math.log(x) + losses * math.log(1 - x) - norm) for x in points) * 0.5 / cells
    assert p_majority(wins, losses) == pytest.approx(tail, abs=1e-5)
    assert p_majority(wins, losses) + p_majority(losses, wins) == pytest.approx(1)


def test_estimate_leaves_out_unscored_plays() -> None:
    plays = [Play("a", 1.0, 4, 100), Play("b", None, 50, 9000), Play("c", 0.5, 6, 300)]
    found = estimate(plays)
    assert found == Estimate(0.75, 5.0, 200.0, 2)
    assert found.wins == 1.5
    assert estimate(plays[1:2]) is None


def finished(name: str, actions: Sequence[str], value: float | None, inherited: int = 0, samples: int = 1) -> Finished:
    visits = tuple(Visit("/".join(actions[:depth]), action, False, f"s{depth}") for depth, action in enumerate(actions))
    parent = name.partition("@")[0] if inherited else None
    return Finished("task", POLICY, visits, Play(name, value, len(actions), 10), parent, inherited, samples)


def tree_of(*rollouts: Finished) -> ValueTree:
    tree = ValueTree(POLICY)
    for each in rollouts:
        tree.add(each)
    return tree


def test_values_of_plain_rollouts_are_the_means_of_their_results() -> None:
    tree = tree_of(
        finished("1", "ab", 1.0), finished("2", "ac", 0.0), finished("3", "ac", 1.0), finished("4", "x", 0.0)
    )
    assert tree.values()[""] == Estimate(0.5, 1.75, 10.0, 4)
    found = tree.action_value("", "a")
    assert found
    assert found.value == pytest.approx(2 / 3)
    assert found.count == 3


def test_forked_subtree_weighs_no_more_than_the_draw_that_led_to_it() -> None:
    """Leaf counts would say (8 + 0) / 9 at the root; the policy chose both ways equally often."""
    original, other = finished("1", "ab", 1.0), finished("2", "xy", 0.0)
    forks = [finished(f"1@{number}", "ab", 1.0, inherited=1) for number in range(7)]
    tree = tree_of(original, other, *forks)
    assert tree.values()[""] == Estimate(0.5, 2.0, 10.0, 2)
    found = tree.action_value("", "a")
    assert found
    assert (found.value, found.count) == (1.0, 8)


def test_values_are_backed_up_node_by_node_through_nested_forks() -> None:
    """Root: a twice, x once. After a: b once and c once. After ac: d and e once each, e played on four times."""
    tree = tree_of(
        finished("1", "ab", 1.0),
        finished("2", "acd", 1.0),
        finished("3", "x", 0.0),
        finished("2@0", "ace", 0.0, inherited=2),
        *(finished(f"2@{number}", "ace", 0.0, inherited=3) for number in range(1, 4)),
    )
    values = tree.values()
    assert values["a/c"].value == 1 / 2
    assert values["a"].value == (1 + 1 / 2) / 2
    assert values[""].value == pytest.approx((2 * 0.75 + 0) / 3)  # leaf counts: 2 of 7
    assert (values["a/c"].count, values["a"].count, values[""].count) == (2, 2, 3)


def test_action_weighs_by_its_draws_and_not_by_its_continuations() -> None:
    """At the fork, b was drawn three times and c once; c was played on as often as b."""
    forks = [finished("1@b0", "ab", 1.0, inherited=1, samples=3), finished("1@b1", "ab", 1.0, inherited=2)]
    forks += [finished("1@c0", "ac", 0.0, inherited=1, samples=1), finished("1@c1", "ac", 0.0, inherited=2)]
    values = tree_of(finished("1", "az", None), *forks).values()
    assert values["a"].value == 3 / 4
    assert values["a"].count == 3  # b: three draws, but two continuations; c: one draw


def test_action_that_was_put_there_by_hand_has_a_value_and_no_weight() -> None:
    tree = tree_of(finished("1", "ab", 0.0), finished("1@hand", "ac", 1.0, inherited=1, samples=0))
    assert tree.values()["a"].value == 0.0
    found = tree.action_value("a", "c")
    assert found
    assert found.value == 1.0


def test_unscored_rollouts_count_nowhere() -> None:
    tree = tree_of(finished("1", "ab", 1.0), finished("2", "ac", None), finished("3", "x", None))
    assert tree.values()[""] == Estimate(1.0, 2.0, 10.0, 1)
    assert tree.action_value("", "x") is None


def test_action_with_several_successors_weighs_them_by_arrivals() -> None:
    def flaky(name: str, after: str, value: float) -> Finished:
        return replace(
            finished(name, "ab", value),
            visits=(Visit("root", "a", False, "s0"), Visit(after, "b", False, "s1")),
        )

    tree = tree_of(flaky("1", "green", 1.0), flaky("2", "green", 1.0), flaky("3", "red", 0.0))
    found = tree.action_value("root", "a")
    assert found
    assert found.value == pytest.approx(2 / 3)
    assert found.count == 3


def test_long_rollouts_are_backed_up_without_recursion() -> None:
    assert tree_of(finished("1", ["a"] * 3000, 1.0)).values()[""].value == 1.0


@pytest.mark.parametrize(
    "other", [PolicyKey("search", "m", 0.7), PolicyKey("model", "n", 0.7), PolicyKey("model", "m", 1.0)]
)
def test_values_are_never_backed_up_across_policies(other: PolicyKey) -> None:
    tree = tree_of(finished("1", "ab", 1.0))
    with pytest.raises(ValueError, match="cannot be backed up"):
        tree.add(replace(finished("2", "ab", 0.0), policy=other))


@given(st.lists(st.tuples(st.text("ab", min_size=1, max_size=4), st.sampled_from([0.0, 1.0, None])), min_size=1))
def test_values_of_rollouts_without_forks_equal_leaf_means(played: list[tuple[str, float | None]]) -> None:
    rollouts = [finished(str(number), f"{actions}.", value) for number, (actions, value) in enumerate(played)]
    scored = [value for _, value in played if value is not None]
    found = tree_of(*rollouts).values().get("")
    if not scored:
        assert found is None
    elif len(scored) == len(played):
        assert found
        assert found.value == pytest.approx(sum(scored) / len(scored))
        assert found.count == len(scored)
