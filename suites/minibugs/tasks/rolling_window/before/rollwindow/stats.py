"""Numbers about moving windows."""

from rollwindow.windows import windows


def moving_average(values, size):
    """Yield the mean of every window."""
    for window in windows(values, size):
        yield sum(window) / size


def moving_range(values, size):
    """Yield the difference between the largest and the smallest value of every window."""
    for window in windows(values, size):
        yield max(window) - min(window)


def first_alarm(values, size, limit):
    """Return the index of the first value that lifts the moving average over `limit`, or None."""
    for index, average in enumerate(moving_average(values, size), start=size - 1):
        if average > limit:
            return index
    return None
