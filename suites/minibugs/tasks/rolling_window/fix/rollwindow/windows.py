"""Cutting a series in pieces."""

from collections import deque


def windows(values, size):
    """Yield every run of `size` values that follow each other, as tuples."""
    if size < 1:
        raise ValueError("a window has at least one value")
    current = deque(maxlen=size)
    for value in values:
        current.append(value)
        if len(current) == size:
            yield tuple(current)


def chunks(values, size):
    """Yield the values in tuples of `size` without overlap; the last one may be shorter."""
    if size < 1:
        raise ValueError("a chunk has at least one value")
    current = []
    for value in values:
        current.append(value)
        if len(current) == size:
            yield tuple(current)
            current = []
    if current:
        yield tuple(current)
