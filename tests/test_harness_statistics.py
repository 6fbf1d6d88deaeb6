"""The statistics against published values and brute force."""

from __future__ import annotations

import itertools

import pytest

from harness.statistics import mean, pass_at_k, wilson_interval


@pytest.mark.parametrize(
    ("solved", "count", "low", "high"),
    [
        (4, 8, 0.2152, 0.7848),  # 0.22 to 0.79 in FACTS
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_agrees_with_published_values(solved: int, count: int, low: float, high: float) -> None:
    assert wilson_interval(solved / count, count) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("count", range(1, 60))
def test_wilson_interval_holds_the_rate_itself_to_the_last_digit(count: int) -> None:
    for solved in range(count + 1):
        low, high = wilson_interval(solved / count, count)
        assert 0.0 <= low <= solved / count <= high <= 1.0


def test_wilson_interval_of_nothing_is_everything() -> None:
    assert wilson_interval(0.0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("attempts", "solved"), [(n, c) for n in range(1, 7) for c in range(n + 1)])
def test_pass_at_k_is_the_share_of_subsets_with_a_success(attempts: int, solved: int) -> None:
    results = [True] * solved + [False] * (attempts - solved)
    for k in range(1, attempts + 1):
        subsets = list(itertools.combinations(results, k))
        assert pass_at_k(attempts, solved, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@pytest.mark.parametrize(("attempts", "k"), [(1, 2), (3, 0), (0, 1), (3, -1)])
def test_pass_at_k_refuses_more_than_was_tried(attempts: int, k: int) -> None:
    with pytest.raises(ValueError, match="attempts"):
        pass_at_k(attempts, 0, k)


def test_mean_of_nothing_is_unknown() -> None:
    assert mean([]) is None
    assert mean([1.0, 2.0]) == 1.5
