"""Limits of money and tokens for a whole run, shared by its threads."""

from __future__ import annotations

import threading

from harness.errors import RolloutEnd
from harness.records import Completion, StopReason


class Budget:
    """Counts what completions cost; None is no limit."""

    def __init__(self, max_cost_usd: float | None = None, max_tokens: int | None = None) -> None:
        self.max_cost_usd, self.max_tokens = max_cost_usd, max_tokens
        self._lock = threading.Lock()
        self.cost_usd, self.tokens = 0.0, 0

    @property
    def spent(self) -> bool:
        over_cost = self.max_cost_usd is not None and self.cost_usd >= self.max_cost_usd
        return over_cost or (self.max_tokens is not None and self.tokens >= self.max_tokens)

    def check(self) -> None:
        """Raises RolloutEnd(BUDGET) once a limit is reached. Calls in flight may go over it by what they cost."""
        if self.spent:
            raise RolloutEnd(StopReason.BUDGET)

    def add(self, completion: Completion) -> None:
        usage = completion.usage
        with self._lock:
            self.cost_usd += completion.cost_usd or 0.0
            self.tokens += (usage.prompt_tokens or 0) + (usage.completion_tokens or 0)
