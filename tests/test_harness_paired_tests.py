"""The paired tests against scipy, published examples, brute force, and worlds without any effect."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from scipy import stats

from harness.statistics import holm, mcnemar, paired_difference, sign_flip, task_differences

DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
"""Heights of 15 crossed less self-fertilised plants, in eighths of an inch."""


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (3, 3), (0, 6), (10, 3), (86, 150), (700, 610)])
def test_mcnemar_is_the_binomial_test_of_the_pairs_that_differ(first: int, second: int) -> None:
    expected = stats.binomtest(first, first + second, 0.5).pvalue if first + second else 1.0
    assert mcnemar(first, second) == mcnemar(second, first) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_agrees_with_a_published_example() -> None:
    # approval of a prime minister, asked twice (Agresti 1990, p. 350), as the R package exact2x2 tests it (Fay 2010)
    assert mcnemar(150, 86) == pytest.approx(3.716e-05, abs=5e-9)


def test_sign_flip_counts_what_fisher_counted() -> None:
    # The Design of Experiments, section 21: a sum of 314 or more in 863 of 32,768 cases
    assert sign_flip([float(each) for each in DARWIN]) == 2 * 863 / 2**15


@pytest.mark.parametrize("count", [1, 2, 5, 9, 13])
def test_sign_flip_is_the_exact_permutation_test(count: int) -> None:
    generator = random.Random(count)
    differences = [generator.choice((-1.0, -0.25, 0.0, 0.1, 0.3, 0.5)) for _ in range(count)]
    signs = itertools.product((1, -1), repeat=count)
    sums = [abs(sum(map(math.prod, zip(each, differences, strict=True)))) for each in signs]
    expected = sum(each >= abs(sum(differences)) - 1e-9 for each in sums) / len(sums)
    assert sign_flip(differences) == pytest.approx(expected)


def test_sign_flip_draws_agree_with_scipy() -> None:
    generator = random.Random(1)
    differences = [generator.choice((-0.5, -0.25, 0.0, 0.25, 0.75)) for _ in range(60)]
    data, mean = (differences, [0.0] * 60), lambda first, second, axis: (first - second).mean(axis)
    known = stats.permutation_test(data, mean, permutation_type="samples", n_resamples=9_999, rng=1, vectorized=True)
    assert 0.01 < known.pvalue < 0.6
    assert sign_flip(differences) == pytest.approx(known.pvalue, abs=0.02)


def test_sign_flip_says_the_same_every_time() -> None:
    differences = [0.1 * (-1) ** (place // 2) + 0.02 for place in range(50)]
    assert sign_flip(differences, seed=3) == sign_flip(differences, seed=3)


@pytest.mark.parametrize("differences", [[], [0.0], [0.0] * 40])
def test_sign_flip_of_no_difference_is_one(differences: list[float]) -> None:
    assert sign_flip(differences) == 1.0


def test_tasks_without_a_difference_change_no_test() -> None:
    assert sign_flip([0.5, 0.25, 0.5, -0.25]) == sign_flip([0.5, 0.25, 0.5, -0.25] + [0.0] * 100)


def no_effect(count: int, rollouts: int, seed: int) -> list[float]:
    """Differences of two sides that solve each task equally often; tasks are of all difficulties."""
    generator, found = random.Random(f"{count} {rollouts} {seed}"), []
    for _ in range(count):
        chance = generator.random()
        first, second = (sum(generator.random() < chance for _ in range(rollouts)) for _ in range(2))
        found.append((second - first) / rollouts)
    return found


@pytest.mark.parametrize("count", [8, 12, 40, 512])
def test_false_alarms_are_at_most_one_in_twenty(count: int) -> None:
    trials = 600
    single = [no_effect(count, 1, trial) for trial in range(trials)]
    several = [no_effect(count, 4, trial) for trial in range(trials)]
    alarms = {
        "mcnemar": sum(mcnemar(each.count(-1.0), each.count(1.0)) <= 0.05 for each in single),
        "sign_flip": sum(sign_flip(each, trial, draws=199) <= 0.05 for trial, each in enumerate(several)),
    }
    most = 0.05 + 2 * math.sqrt(0.05 * 0.95 / trials)
    assert {name: hits / trials for name, hits in alarms.items() if hits / trials > most} == {}


def test_of_many_comparisons_without_effect_holm_lets_hardly_any_pass() -> None:
    trials, found = 400, 0
    for trial in range(trials):
        differences = [no_effect(40, 1, 10 * trial + place) for place in range(10)]
        found += min(holm([mcnemar(each.count(-1.0), each.count(1.0)) for each in differences])) <= 0.05
    assert found / trials <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / trials)


def test_holm_agrees_with_a_worked_example() -> None:
    # Wikipedia, "Holm-Bonferroni method": of these only the first and the last are rejected
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_is_the_closed_test_of_all_subsets() -> None:
    p_values = [0.2, 0.001, 0.03, 0.03, 0.9]
    subsets = [each for size in range(1, 6) for each in itertools.combinations(range(5), size)]

    def worst(place: int) -> float:
        return max(min(1.0, len(each) * min(p_values[one] for one in each)) for each in subsets if place in each)

    assert holm(p_values) == pytest.approx([worst(place) for place in range(5)])
    assert holm([]) == []


def test_a_task_counts_once_however_often_it_was_played() -> None:
    first = {"a": [0.0, 1.0], "b": [1.0]}
    assert task_differences(first, {"b": [0.0, 0.0, 0.0, 1.0], "a": [1.0]}) == [0.5, -0.75]


@pytest.mark.parametrize("second", [{"a": [1.0]}, {"a": [1.0], "c": [1.0]}, {"a": [1.0], "b": []}])
def test_differences_of_other_tasks_are_refused(second: dict[str, list[float]]) -> None:
    with pytest.raises(ValueError, match="task"):
        task_differences({"a": [1.0], "b": [0.0]}, second)


@pytest.mark.slow
@pytest.mark.parametrize("count", [8, 12, 40, 512])
def test_the_interval_holds_the_true_difference_nineteen_times_in_twenty(count: int) -> None:
    trials, held = 200, 0
    for trial in range(trials):
        found = paired_difference(no_effect(count, 4, trial), trial, resamples=300)
        held += found.low <= 1e-9 and found.high >= -1e-9
    assert held / trials >= 0.95 - 2 * math.sqrt(0.05 * 0.95 / trials)


def test_the_interval_of_many_tasks_is_that_of_the_normal_distribution() -> None:
    differences = [float(each) for each in no_effect(512, 1, 0)]
    found = paired_difference(differences)
    half = 1.96 * stats.sem(differences)
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=0.006)


def test_one_task_says_nothing_of_the_difference() -> None:
    assert paired_difference([0.5]).low == -1.0
    assert paired_difference([0.5]).high == 1.0
