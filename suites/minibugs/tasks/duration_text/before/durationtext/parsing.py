"""Text to seconds."""

import re

from durationtext.units import SECONDS

_PART = re.compile(r"(\d+)\s*([a-z])\s*")


class DurationError(ValueError):
    """The text is no duration."""


def parse_duration(text):
    """Return the seconds that `text` stands for; the units must get smaller from left to right."""
    rest = text.strip().lower()
    if not rest:
        raise DurationError("no duration given")
    total = 0
    last_unit = None
    while rest:
        match = _PART.match(rest)
        if match is None or match.group(2) not in SECONDS:
            raise DurationError("not a duration: {!r}".format(text))
        unit = SECONDS[match.group(2)]
        if last_unit is not None and unit >= last_unit:
            raise DurationError("units out of order: {!r}".format(text))
        total += int(match.group(1)) * unit
        last_unit = unit
        rest = rest[match.end() :]
        return total
