"""The statistics of reports. Small samples are the rule here, so every rate comes with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z_95 = 1.959963984540054


def wilson_interval(rate: float, count: float, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval for a proportion observed on `count` independent units; (0, 1) for none (Wilson 1927)."""
    if count <= 0:
        return 0.0, 1.0
    centre = (rate + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


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
