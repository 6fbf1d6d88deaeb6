"""How often to try, and how long to wait in between."""


class RetryPolicy:
    """Tries `attempts` times; waits grow by `factor` and never exceed `max_wait_s`."""

    def __init__(self, attempts=3, first_wait_s=1.0, factor=2.0, max_wait_s=60.0):
        if attempts < 1:
            raise ValueError("at least one attempt is needed")
        self.attempts = attempts
        self.first_wait_s = first_wait_s
        self.factor = factor
        self.max_wait_s = max_wait_s

    def waits(self):
        """Yield the seconds to wait after each failed attempt that another one follows."""
        wait_s = self.first_wait_s
        for _ in range(self.attempts - 1):
            yield min(wait_s, self.max_wait_s)
            wait_s *= self.factor
