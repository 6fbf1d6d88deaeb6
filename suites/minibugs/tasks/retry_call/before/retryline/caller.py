"""Making calls under a retry policy."""

import time


def call(function, policy, retry_on=(OSError,), sleep=time.sleep):
    """Return what `function()` returns, trying again after the errors in `retry_on`.

    Other errors, and the error of the last attempt, go to the caller.
    """
    for wait_s in policy.waits():
        try:
            return function()
        except Exception:
            sleep(wait_s)
    return function()


class Retrying:
    """A callable that wraps another one and counts how often it was repeated."""

    def __init__(self, function, policy, retry_on=(OSError,), sleep=time.sleep):
        self._function = function
        self._policy = policy
        self._retry_on = retry_on
        self._sleep = sleep
        self.repeats = 0

    def __call__(self, *args, **kwargs):
        return call(
            lambda: self._function(*args, **kwargs),
            self._policy,
            self._retry_on,
            self._pause,
        )

    def _pause(self, wait_s):
        self.repeats += 1
        self._sleep(wait_s)
