"""Spans of time in a day."""


def clock(text):
    """Return '9:30' as minutes since midnight."""
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


class Span:
    """The time from `start` up to, but without, `end`."""

    def __init__(self, start, end):
        if not start < end:
            raise ValueError("a span ends after its start")
        self.start = start
        self.end = end

    @property
    def minutes(self):
        return self.end - self.start

    def overlaps(self, other):
        """Tell whether the two spans have a minute in common."""
        return self.start < other.end and other.start < self.end

    def __eq__(self, other):
        if not isinstance(other, Span):
            return NotImplemented
        return (self.start, self.end) == (other.start, other.end)

    def __repr__(self):
        return "Span({}, {})".format(self.start, self.end)
