"""A room and its bookings for one day."""

from roombook.span import Span


class Clash(Exception):
    """The room is taken for a part of the time."""


class Room:
    """Takes bookings between `opens` and `closes`."""

    def __init__(self, opens, closes):
        self.hours = Span(opens, closes)
        self._bookings = []

    def book(self, start, end, who):
        """Book the room, or raise Clash."""
        span = Span(start, end)
        if start < self.hours.start or end > self.hours.end:
            raise Clash("the room is closed")
        for taken, holder in self._bookings:
            if span.overlaps(taken):
                raise Clash("booked by {}".format(holder))
        self._bookings.append((span, who))
        return span

    def cancel(self, who):
        """Drop all bookings of `who`; returns how many there were."""
        kept = [booking for booking in self._bookings if booking[1] != who]
        dropped = len(self._bookings) - len(kept)
        self._bookings = kept
        return dropped

    def free(self, at_least=1):
        """Return the free spans of the day that last `at_least` minutes, in order."""
        spans = []
        cursor = self.hours.start
        for taken, _ in self._bookings:
            if taken.start - cursor >= at_least:
                spans.append(Span(cursor, taken.start))
            cursor = taken.end
        if self.hours.end - cursor >= at_least:
            spans.append(Span(cursor, self.hours.end))
        return spans
