"""Bookings of a meeting room. Times are minutes since midnight."""

from roombook.room import Clash, Room
from roombook.span import Span, clock

__all__ = ["Clash", "Room", "Span", "clock"]
