"""Durations as text: 90s, 1h30m, 2d 4h."""

from durationtext.formatting import format_duration
from durationtext.limits import Limits
from durationtext.parsing import DurationError, parse_duration

__all__ = ["DurationError", "Limits", "format_duration", "parse_duration"]
