"""What happened in a log, in a few numbers."""

from collections import Counter

from eventdigest.reader import read_events


class Digest:
    """Counts by level, the noisiest sources and the time span of a log."""

    def __init__(self, levels, sources, span):
        self.levels = levels
        self.sources = sources
        self.span = span


def noisiest(events, limit):
    """Return the sources with the most events, at most `limit`, ties by name."""
    counts = Counter(event.source for event in events)
    ranked = sorted(counts, key=lambda source: (-counts[source], source))
    return ranked[:limit]


def time_span(events):
    """Return the seconds between the first and the last event, None without events."""
    times = [event.time for event in events]
    return max(times) - min(times) if times else None


def summarize(lines, limit=3):
    """Return the Digest of a log."""
    events = read_events(lines)
    levels = Counter(event.level for event in events)
    return Digest(dict(levels), noisiest(events, limit), time_span(events))
