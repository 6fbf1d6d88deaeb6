"""How many tasks a comparison needs: against scipy, a published table, brute force, and simulated comparisons."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from scipy import stats

from harness.statistics import _quick_sign_flip, mcnemar, mcnemar_power, sign_flip, sign_flip_power, tasks_needed


@pytest.mark.parametrize(("gained", "lost", "tasks"), [(0.3, 0.05, 20), (0.5, 0.0, 8), (0.2, 0.2, 40), (0.01, 0.4, 33)])
def test_power_of_mcnemar_counts_every_outcome(gained: float, lost: float, tasks: int) -> None:
    outcomes = ((up, down) for up in range(tasks + 1) for down in range(tasks + 1 - up) if mcnemar(down, up) <= 0.05)
    counted = stats.multinomial(tasks, [gained, lost, 1 - gained - lost])
    expected = sum(counted.pmf([up, down, tasks - up - down]) for up, down in outcomes)
    assert mcnemar_power(gained, lost, tasks) == pytest.approx(expected, abs=1e-8)


def test_power_of_mcnemar_where_all_tasks_differ_is_that_of_the_sign_test() -> None:
    # Gibbons and Chakraborti, Nonparametric Statistical Inference (2011), section 5.4: n = 20, K >= 15 or K <= 5
    expected = stats.binom.sf(14, 20, 0.7) + stats.binom.cdf(5, 20, 0.7)
    assert mcnemar_power(0.7, 0.3, 20) == pytest.approx(expected)
    assert mcnemar_power(0.7, 0.3, 20) == pytest.approx(0.4164, abs=5e-5)


@pytest.mark.parametrize(("tasks", "power"), [(5, 0.0), (6, 1.0)])
def test_six_gained_and_none_lost_is_the_first_difference_that_can_be_seen(tasks: int, power: float) -> None:
    assert mcnemar_power(1.0, 0.0, tasks) == pytest.approx(power)


def test_tasks_that_never_differ_have_no_power() -> None:
    assert mcnemar_power(0.0, 0.0, 1_000) == 0.0
    assert sign_flip_power([0.0] * 12, 40) == 0.0


def test_a_stricter_level_has_less_power() -> None:
    assert mcnemar_power(0.4, 0.1, 30, alpha=0.025) < mcnemar_power(0.4, 0.1, 30)


def test_power_of_sign_flips_counts_what_the_test_would_say() -> None:
    # four kinds of tasks, six tasks: all 4,096 draws
    kinds = [0.5, 0.25, 0.0, -0.25]
    draws = list(itertools.product(kinds, repeat=6))
    expected = sum(sign_flip(each) <= 0.05 for each in draws) / len(draws)
    assert sign_flip_power(kinds, 6, trials=4_000) == pytest.approx(expected, abs=0.02)


def test_power_of_sign_flips_on_outcomes_of_one_rollout_is_that_of_mcnemar() -> None:
    differences = [1.0] * 8 + [-1.0] * 2 + [0.0] * 10
    assert sign_flip_power(differences, 40, trials=4_000) == pytest.approx(mcnemar_power(0.4, 0.1, 40), abs=0.02)


@pytest.mark.parametrize("count", [200, 400])
def test_where_exact_p_values_are_dear_the_normal_limit_is_as_good(count: int) -> None:
    generator = random.Random(count)
    for _ in range(20):
        fifths = [generator.choice((-3, -2, -1, 0, 0, 1, 2, 3, 4)) for _ in range(count)]
        assert _quick_sign_flip(fifths) == pytest.approx(sign_flip([each / 5 for each in fifths]), abs=0.003)


@pytest.mark.parametrize("right", [9, 10, 17, 1_000])
def test_the_smallest_number_with_the_power_is_found(right: int) -> None:
    assert tasks_needed(lambda tasks: float(tasks >= right), 9, 1_000) == right


def test_more_tasks_than_the_most_are_not_named() -> None:
    assert tasks_needed(lambda tasks: 0.5, 9, 1_000) is None


@pytest.mark.slow
@pytest.mark.parametrize(("gained", "lost"), [(0.3, 0.05), (0.5, 0.1), (0.15, 0.05)])
def test_the_tasks_that_mcnemar_needs_are_those_with_which_four_of_five_comparisons_see_it(
    gained: float, lost: float
) -> None:
    needed = tasks_needed(lambda tasks: mcnemar_power(gained, lost, tasks), 1, 2_000)
    assert needed
    generator, trials, found = random.Random(f"{gained} {lost}"), 4_000, 0
    for _ in range(trials):
        drawn = [generator.random() for _ in range(needed)]
        up, down = sum(each < gained for each in drawn), sum(each > 1 - lost for each in drawn)
        found += mcnemar(down, up) <= 0.05
    assert found / trials == pytest.approx(0.8, abs=0.02 + 2 * math.sqrt(0.16 / trials))


@pytest.mark.slow
@pytest.mark.parametrize("better", [0.1, 0.2])
def test_the_tasks_that_sign_flips_need_are_those_with_which_four_of_five_comparisons_see_it(better: float) -> None:
    generator, trials = random.Random(f"{better}"), 1_000

    def task() -> float:
        """Five rollouts on each side of a task of some difficulty."""
        chance = generator.random()
        second, first = (sum(generator.random() < p for _ in range(5)) for p in (min(1.0, chance + better), chance))
        return (second - first) / 5

    known = [task() for _ in range(4_000)]
    needed = tasks_needed(lambda tasks: sign_flip_power(known, tasks), 1, 1_000)
    assert needed
    found = sum(sign_flip([task() for _ in range(needed)]) <= 0.05 for _ in range(trials))
    assert found / trials == pytest.approx(0.8, abs=0.04 + 2 * math.sqrt(0.16 / trials))
