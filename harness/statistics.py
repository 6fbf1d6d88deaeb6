"""The statistics of reports. Small samples are the rule here, so every rate comes with an interval."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from statistics import NormalDist

Z_95 = 1.959963984540054


def wilson_interval(rate: float, count: float, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval for a proportion observed on `count` independent units; (0, 1) for none (Wilson 1927)."""
    if count <= 0:
        return 0.0, 1.0
    centre = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    return max(0.0, min(rate, centre - half)), min(1.0, max(rate, centre + half))


def pass_at_k(attempts: int, solved: int, k: int) -> float:
    """Unbiased estimate of P(at least one of k attempts solves), from `solved` of `attempts` (Chen et al. 2021).

    Raises ValueError for k > attempts: there is no unbiased estimate then.
    """
    if not 1 <= k <= attempts:
        raise ValueError(f"pass@{k} needs at least {k} attempts, not {attempts}")
    return 1.0 - math.comb(attempts - solved, k) / math.comb(attempts, k)


def mean(values: Sequence[float]) -> float | None:
    """None for no values."""
    return sum(values) / len(values) if values else None


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's exact test, from the pairs of which only one was right (McNemar 1947).

    For one rollout a task on each side. Pairs that agree say nothing; 1 where all do.
    """
    pairs = only_first + only_second
    tail = sum(math.comb(pairs, fewer) for fewer in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / (1 << pairs))


def sign_flip(differences: Sequence[float], seed: int = 0, draws: int = 9_999) -> float:
    """Two-sided p-value of the hypothesis that paired differences are as likely to be d as -d (Fisher 1935).

    For several rollouts a task: a difference is that of a task's means. Up to 16 differences other than 0 every choice
    of signs is counted; for more, seeded draws are, the data themselves among them (Phipson and Smyth 2010).
    """
    sizes = [abs(each) for each in differences if each]
    least = abs(math.fsum(differences)) - 1e-9 * math.fsum(sizes)
    if len(sizes) <= _EXACT:
        sums = _all_sums(sizes)
        return sum(abs(each) >= least for each in sums) / len(sums)
    hits = sum(abs(each) >= least for each in _drawn_sums(sizes, seed, draws))
    return (hits + 1) / (draws + 1)


_EXACT = 16
_BITS = bytes(byte & 1 for byte in range(256))


def _all_sums(sizes: Sequence[float]) -> list[float]:
    """For every choice of signs but that of the first: the rest are the same with the other sign."""
    sums = [sizes[0] if sizes else 0.0]
    for size in sizes[1:]:
        sums = [each + signed for each in sums for signed in (size, -size)]
    return sums


def _drawn_sums(sizes: Sequence[float], seed: int, draws: int) -> Iterator[float]:
    generator, total = random.Random(seed), math.fsum(sizes)
    for _ in range(draws):
        turned = compress(sizes, generator.randbytes(len(sizes)).translate(_BITS))
        yield total - 2 * sum(turned)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values, each adjusted for all of them being looked at, in the same order (Holm 1979)."""
    adjusted, largest, count = [0.0] * len(p_values), 0.0, len(p_values)
    for rank, place in enumerate(sorted(range(count), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (count - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


@dataclass(frozen=True)
class Difference:
    """Of the mean scores of two policies on the same tasks: the second less the first."""

    mean: float
    low: float
    high: float


def task_differences(first: Mapping[str, Sequence[float]], second: Mapping[str, Sequence[float]]) -> list[float]:
    """Per task the mean of the second's rollouts less that of the first's; a task counts once, however often played.

    Raises ValueError where the tasks are not the same, or one was not played.
    """
    if first.keys() != second.keys():
        raise ValueError("the tasks are not the same")
    if not all(first.values()) or not all(second.values()):
        raise ValueError("a task has no rollout")
    return [sum(second[task]) / len(second[task]) - sum(first[task]) / len(first[task]) for task in sorted(first)]


def paired_difference(differences: Sequence[float], seed: int = 0, resamples: int = 2_000) -> Difference:
    """The mean of tasks' differences (from -1 to 1) with its 95% interval: a seeded bootstrap over whole tasks.

    The percentiles are the expanded ones, which are wide enough for few tasks too (Hesterberg 2015); (-1, 1) for fewer
    than two. Differences that are all equal have an interval of no width: a test tells more then.
    """
    count = len(differences)
    if count < 2:
        return Difference(sum(differences), -1.0, 1.0)
    generator = random.Random(seed)
    means = sorted(sum(generator.choices(differences, k=count)) / count for _ in range(resamples))
    outside = int(_expanded_tail(count) * resamples)
    return Difference(math.fsum(differences) / count, means[outside], means[-1 - outside])


def _expanded_tail(count: int) -> float:
    """The share of resamples beyond an end of the interval; Student's quantile is Fisher and Cornish's (1960)."""
    z, degrees = Z_95, count - 1
    student = z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
    return NormalDist().cdf(-math.sqrt(count / degrees) * student)
