"""The statistics of reports. Small samples are the rule here, so every rate comes with an interval."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate, compress
from statistics import NormalDist

Z_95 = 1.959963984540054
ALPHA, POWER = 0.05, 0.8


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

    For several rollouts a task: a difference is that of a task's means. Every choice of signs is counted where at most
    16 differences are other than 0, or where all are multiples of one unit, as means of few rollouts are. For others
    seeded draws are, the data themselves among them (Phipson and Smyth 2010).
    """
    sizes = [abs(each) for each in differences if each]
    if (whole := _multiples([each for each in differences if each])) and _affordable(whole, _MOST_WORK):
        return _counted(whole)
    least = abs(math.fsum(differences)) - 1e-9 * math.fsum(sizes)
    if len(sizes) <= _EXACT:
        sums = _all_sums(sizes)
        return sum(abs(each) >= least for each in sums) / len(sums)
    hits = sum(abs(each) >= least for each in _drawn_sums(sizes, seed, draws))
    return (hits + 1) / (draws + 1)


_EXACT = 16
_BITS = bytes(byte & 1 for byte in range(256))
_FINEST, _CLOSE = 10_000, 1e-12
_MOST_WORK, _WORK_OF_ONE = 2**26, 2**23


def _multiples(differences: Sequence[float]) -> list[int] | None:
    """The differences in whole numbers of a unit that they share; None where there is no such unit."""
    parts = [Fraction(each).limit_denominator(_FINEST) for each in differences]
    if any(abs(float(part) - each) > _CLOSE for part, each in zip(parts, differences, strict=True)):
        return None
    unit = math.lcm(*(part.denominator for part in parts))
    return [int(part * unit) for part in parts]


def _affordable(whole: Sequence[int], most: int) -> bool:
    """Whether to count every choice of signs takes no more than so many steps of one bit."""
    return sum(map(abs, whole)) * (len(whole) + 1) * len(whole) <= most


def _counted(whole: Sequence[int]) -> float:
    """The exact sign-flip p-value of whole numbers other than 0.

    The ways to reach each sum of the turned sizes are coefficients of the product of all (1 + x**size): digits, of a
    bit more than there are sizes, of one long number. The low ones are those of sums as extreme as the one seen.
    """
    width, ways = len(whole) + 1, 1
    for size in map(abs, whole):
        ways += ways << size * width
    extreme = (sum(map(abs, whole)) - abs(sum(whole))) // 2
    tail = (ways & ((1 << (extreme + 1) * width) - 1)) % ((1 << width) - 1)  # which adds the digits
    return min(1.0, 2 * tail / (1 << len(whole)))


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


def mcnemar_power(gained: float, lost: float, tasks: int, alpha: float = ALPHA) -> float:
    """P(McNemar's exact test finds a difference) of so many tasks, each gained or lost with these chances.

    Every outcome is counted: how many tasks differ, and how many of these are gained.
    """
    differ = gained + lost
    if not differ:
        return 0.0
    found = 0.0
    for pairs, chance in _likely(tasks, differ):
        most = _critical(pairs, alpha)
        if most >= 0:
            few = (math.fsum(_binomial(pairs, share)[: most + 1]) for share in (gained / differ, lost / differ))
            found += chance * sum(few)
    return found


def _likely(count: int, chance: float) -> Iterator[tuple[int, float]]:
    """Outcomes of a binomial distribution with their chances, but for those of less than one in a billion in all."""
    chances = _binomial(count, chance)
    least = 1e-9 / (count + 1)
    return ((number, each) for number, each in enumerate(chances) if each > least)


def _binomial(count: int, chance: float) -> tuple[float, ...]:
    """The chance of each number of successes."""
    if chance <= 0.0 or chance >= 1.0:
        return tuple(float(number == (count if chance >= 1.0 else 0)) for number in range(count + 1))
    yes, no, whole = math.log(chance), math.log1p(-chance), math.lgamma(count + 1)
    logs = (
        whole - math.lgamma(number + 1) - math.lgamma(count - number + 1) + number * yes + (count - number) * no
        for number in range(count + 1)
    )
    return tuple(map(math.exp, logs))


@lru_cache(maxsize=4_096)
def _critical(pairs: int, alpha: float) -> int:
    """The largest smaller count that McNemar's test still calls a difference; -1 where it calls none so."""
    return sum(2 * tail <= alpha for tail in accumulate(_binomial(pairs, 0.5)[: (pairs + 1) // 2])) - 1


def sign_flip_power(
    differences: Sequence[float], tasks: int, alpha: float = ALPHA, seed: int = 0, trials: int = 1_000
) -> float:
    """P(the sign-flip test finds a difference) of so many tasks whose differences are like these: seeded trials.

    A trial draws tasks from the given ones. Its p-value is exact where that is quick, as for means of five rollouts on
    some 150 tasks, else that of the normal limit.
    """
    generator, whole = random.Random(seed), _multiples(differences)
    drawn = (generator.choices(whole or differences, k=tasks) for _ in range(trials))
    return sum(_quick_sign_flip(each) <= alpha for each in drawn) / trials


def _quick_sign_flip(differences: Sequence[float]) -> float:
    """Where they are whole, their sum with other signs is an even number more or less: hence the 1 of continuity."""
    sizes = [each for each in differences if each]
    whole = [each for each in sizes if isinstance(each, int)]
    if not sizes or (len(whole) == len(sizes) and _affordable(whole, _WORK_OF_ONE)):
        return _counted(whole) if whole else 1.0
    beyond = max(0.0, abs(math.fsum(sizes)) - bool(whole))
    return 2 * NormalDist().cdf(-beyond / math.sqrt(math.fsum(each * each for each in sizes)))


def tasks_needed(power: Callable[[int], float], least: int, most: int, wanted: float = POWER) -> int | None:
    """The smallest number of tasks, from `least` on, that has the power; None where `most` does not. By bisection."""
    low, high = least - 1, least
    while (enough := power(high) >= wanted) is False and high < most:
        low, high = high, min(2 * high, most)
    if not enough:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= wanted else (middle, high)
    return high
