"""Seconds to text."""

from durationtext.units import SECONDS


def format_duration(seconds):
    """Return `seconds` in the units that are needed, the largest first; '0s' for none."""
    if seconds < 0:
        raise ValueError("a duration is not negative")
    parts = []
    for unit, size in SECONDS.items():
        count, seconds = divmod(seconds, size)
        if count:
            parts.append("{}{}".format(count, unit))
    return "".join(parts) or "0s"
