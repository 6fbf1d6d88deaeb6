"""Time limits by name, as they are written in a configuration."""

from durationtext.formatting import format_duration
from durationtext.parsing import parse_duration


class Limits:
    """Named time limits in seconds."""

    def __init__(self, texts):
        self._seconds = {name: parse_duration(text) for name, text in texts.items()}

    def __getitem__(self, name):
        return self._seconds[name]

    def exceeded(self, name, seconds):
        """Tell whether something took longer than it may."""
        return seconds > self._seconds[name]

    def describe(self):
        """Return all limits as lines, sorted by name."""
        return [name + ": " + format_duration(self[name]) for name in sorted(self._seconds)]
