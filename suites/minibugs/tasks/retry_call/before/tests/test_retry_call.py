import pytest

from retryline import Retrying, RetryPolicy, call


class Flaky:
    """Raises the given errors one after the other, then returns 'done'."""

    def __init__(self, *errors):
        self.errors = list(errors)
        self.calls = 0

    def __call__(self):
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_success_needs_no_wait():
    waits = []
    flaky = Flaky()
    assert call(flaky, RetryPolicy(), sleep=waits.append) == "done"
    assert (flaky.calls, waits) == (1, [])


def test_a_passing_fault_is_retried():
    waits = []
    flaky = Flaky(OSError("down"), ConnectionError("reset"))
    assert call(flaky, RetryPolicy(attempts=3), sleep=waits.append) == "done"
    assert (flaky.calls, waits) == (3, [1.0, 2.0])


def test_no_more_calls_than_attempts():
    for attempts in (1, 2, 3, 6):
        waits = []
        flaky = Flaky(*[OSError(str(number)) for number in range(10)])
        with pytest.raises(OSError) as caught:
            call(flaky, RetryPolicy(attempts), sleep=waits.append)
        assert flaky.calls == attempts
        assert len(waits) == attempts - 1
        assert str(caught.value) == str(attempts - 1)


def test_waits_grow_up_to_the_maximum():
    assert list(RetryPolicy(5, 1.0, 3.0, 10.0).waits()) == [1.0, 3.0, 9.0, 10.0]
    assert list(RetryPolicy(1).waits()) == []


def test_other_errors_reach_the_caller_at_once():
    for error in (TypeError("wrong"), KeyError("gone"), ZeroDivisionError()):
        waits = []
        flaky = Flaky(error)
        with pytest.raises(type(error)):
            call(flaky, RetryPolicy(attempts=4), sleep=waits.append)
        assert (flaky.calls, waits) == (1, [])


def test_the_list_of_errors_can_be_chosen():
    flaky = Flaky(KeyError("later"), KeyError("later"))
    assert call(flaky, RetryPolicy(4), retry_on=(KeyError,), sleep=lambda _: None) == "done"
    flaky = Flaky(OSError("down"))
    with pytest.raises(OSError):
        call(flaky, RetryPolicy(4), retry_on=(KeyError,), sleep=lambda _: None)
    assert flaky.calls == 1


def test_retrying_passes_arguments_and_counts_repeats():
    failures = [OSError(), OSError()]

    def add(left, right=0):
        if failures:
            raise failures.pop()
        return left + right

    retrying = Retrying(add, RetryPolicy(3), sleep=lambda _: None)
    assert retrying(2, right=3) == 5
    assert retrying.repeats == 2
    assert retrying(1) == 1
    assert retrying.repeats == 2


def test_a_policy_needs_an_attempt():
    with pytest.raises(ValueError):
        RetryPolicy(attempts=0)
